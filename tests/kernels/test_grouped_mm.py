import pytest
import torch

from minillm.kernels.grouped_mm import grouped_mm, grouped_mm_reference

TILE = (16, 16, 16)


@pytest.mark.parametrize(
    "counts", [(3, 0, 17, 1), (21, 0, 0, 0), (0, 0, 0, 5), (16, 16, 16, 16), (0, 0, 0, 0)], ids=str
)
def test_value_and_gradients(agree, data, device, counts):
    counts = torch.tensor(counts, device=device)
    agree(
        lambda x, w: grouped_mm(x, w, counts, tile=TILE),
        lambda x, w: grouped_mm_reference(x, w, counts),
        data(int(counts.sum()), 19),
        data(4, 7, 19, scale=0.2),
    )


def test_frozen_experts_get_no_gradient(data, device):
    x, w = data(5, 8), data(2, 3, 8, grad=False)
    grouped_mm(x, w, torch.tensor([2, 3], device=device), tile=TILE).float().sum().backward()
    assert x.grad is not None and w.grad is None


def test_counts_that_miss_rows_are_named_on_a_cpu(data, device):
    if device == "cuda":
        pytest.skip("there nobody waits for the counts")
    with pytest.raises(ValueError, match="counts add up to 4, but x has 5 rows"):
        grouped_mm(data(5, 8), data(2, 3, 8), torch.tensor([1, 3]))


def test_rows_given_to_the_wrong_expert_are_seen(data, device, check):
    x, w = data(20, 8, grad=False), data(2, 3, 8, grad=False)
    ours = grouped_mm(x, w, torch.tensor([9, 11], device=device), tile=TILE)
    other = grouped_mm_reference(x.double(), w.double(), torch.tensor([10, 10]))
    with pytest.raises(AssertionError):
        check(ours, other)
