import math

import pytest
import torch

from minillm.nn import (
    BlockPositions,
    LearnedPositions,
    SinusoidalPositions,
    block_positions,
    sinusoidal,
)


def test_sinusoidal_is_the_papers_formula():
    table = sinusoidal(50, 6)
    for pos in (0, 1, 7, 49):
        for i in range(3):
            angle = pos / 10000 ** (2 * i / 6)
            assert table[pos, 2 * i].item() == pytest.approx(math.sin(angle), abs=1e-6)
            assert table[pos, 2 * i + 1].item() == pytest.approx(math.cos(angle), abs=1e-6)


def test_a_shift_is_a_rotation_that_does_not_depend_on_the_position():
    table = sinusoidal(40, 8).double()
    angle = 5 / 10000 ** (torch.arange(0, 8, 2) / 8).double()
    sin, cos = table[:35, 0::2], table[:35, 1::2]
    torch.testing.assert_close(
        table[5:, 0::2], sin * angle.cos() + cos * angle.sin(), atol=1e-5, rtol=0
    )


def test_modules_look_up_rows():
    torch.manual_seed(0)
    learned, fixed = LearnedPositions(9, 4), SinusoidalPositions(9, 4)
    positions = torch.tensor([[0, 3, 8], [2, 2, 1]])
    assert torch.equal(learned(positions), learned.weight[positions])
    assert torch.equal(fixed(positions), sinusoidal(9, 4)[positions])
    assert list(fixed.state_dict()) == [], "the table can be computed, so it is not stored"
    assert sum(p.numel() for p in learned.parameters()) == 36


@pytest.mark.parametrize("module", [LearnedPositions(9, 4), SinusoidalPositions(9, 4)])
@pytest.mark.parametrize("bad", [9, -1])
def test_errors_name_the_position(module, bad):
    with pytest.raises(ValueError, match=rf"positions must lie in 0 … 8, got .*{bad}"):
        module(torch.tensor([[0 if bad > 0 else 5, bad]]))


def test_odd_width():
    with pytest.raises(ValueError, match="d_model 5 is odd"):
        sinusoidal(3, 5)


def test_block_positions_are_glms_example():
    """Two holes in five tokens; the span of the second hole is drawn to be written first."""
    first, second = block_positions(5, [(4, 3), (2, 2)]).tolist()
    assert first == [0, 1, 2, 3, 4, 4, 4, 4, 2, 2]
    assert second == [0, 0, 0, 0, 0, 1, 2, 3, 1, 2]
    wrong = list(range(10))  # one count over everything would tell the model how long the hole is
    assert first != wrong


def test_two_dimensional_positions_are_the_sum_of_two_tables():
    torch.manual_seed(0)
    module = BlockPositions(6, 3, 4)
    positions = torch.stack([block_positions(5, [(4, 3)]), block_positions(6, [(1, 2)])])
    out = module(positions)
    for b in range(2):
        for t in range(8):
            place, inner = positions[b, :, t]
            right = module.text.weight[place] + module.block.weight[inner]
            assert torch.equal(out[b, t], right)
    assert module.block.weight.shape == (4, 4), "block positions are 0 … 3"
    with pytest.raises(ValueError, match="positions must lie in 0 … 3"):
        module(block_positions(5, [(0, 4)])[None])
    swapped = module(positions.flip(1).clamp(max=3))
    assert (swapped - out).abs().max() > 1e-3


def test_a_hole_outside_the_text():
    with pytest.raises(ValueError, match="a hole at 5 lies outside"):
        block_positions(5, [(5, 1)])
    with pytest.raises(ValueError, match="length must be"):
        block_positions(5, [(2, 0)])
