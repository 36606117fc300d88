"""The mask of part A and part B against its definition."""

import pytest
import torch

from minillm.nn import causal_mask
from minillm.nn.prefix import prefix_mask


def test_every_pair_by_the_definition():
    context = torch.tensor([0, 1, 3, 7])
    mask = prefix_mask(context, 7)
    assert mask.shape == (4, 1, 7, 7)
    for row, n in enumerate(context.tolist()):
        for i in range(7):
            for j in range(7):
                in_a = j < n
                assert bool(mask[row, 0, i, j]) == (in_a or (i >= n and j <= i) or i == j)


def test_context_0_and_1_are_causal_and_t_hides_nothing():
    mask = prefix_mask(torch.tensor([0, 1, 5]), 5)[:, 0]
    assert torch.equal(mask[0], causal_mask(5))
    assert torch.equal(mask[1], causal_mask(5))
    assert mask[2].all()


@pytest.mark.parametrize("context", [-1, 6])
def test_contexts_outside_the_row_are_named(context):
    with pytest.raises(ValueError, match="context must"):
        prefix_mask(torch.tensor([2, context]), 5)
