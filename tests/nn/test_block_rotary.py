"""Rotations by two positions against their definition."""

import torch

from minillm.nn import MultiHeadAttention, Rotary, rotary_frequencies, rotate_pairs
from minillm.nn.block_rotary import BlockRotary


def places():
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 30, (2, 2, 7), generator=generator)


def test_each_half_is_turned_by_its_own_position():
    x = torch.randn(2, 3, 7, 12, dtype=torch.float64)
    for rotate in (None, rotate_pairs):
        options = {} if rotate is None else {"rotate": rotate}
        ours = BlockRotary(rotary_frequencies(6), **options)
        one = Rotary(rotary_frequencies(6), **options)
        positions = places()
        right = torch.cat(
            [one(x[..., :6], positions[:, 0]), one(x[..., 6:], positions[:, 1])], dim=-1
        )
        assert torch.equal(ours(x, positions), right)


def test_scores_depend_on_both_differences_and_on_nothing_else():
    q, k = torch.randn(2, 2, 3, 7, 8, dtype=torch.float64)
    turn, positions = BlockRotary(rotary_frequencies(4)), places()

    def scores(p):
        return turn(q, p) @ turn(k, p).mT

    moved = positions + torch.tensor([5, 11])[:, None]
    assert (scores(positions) - scores(moved)).abs().max() < 1e-12
    for axis in (0, 1):
        other = positions.clone()
        other[:, axis, 3] += 2
        assert (scores(positions) - scores(other)).abs().max() > 1e-3


def test_without_a_second_position_it_is_zero():
    x, p = torch.randn(1, 2, 5, 8), torch.arange(5)[None]
    turn = BlockRotary(rotary_frequencies(4))
    assert torch.equal(turn(x, p), turn(x, torch.stack([p, p * 0], dim=1)))


def test_attention_hands_both_positions_on():
    torch.manual_seed(0)
    attention = MultiHeadAttention(24, 2, rotary=BlockRotary(rotary_frequencies(6)))
    x, positions = torch.randn(2, 7, 24), places()
    swapped = attention(x, positions=positions.flip(1))
    assert not torch.allclose(attention(x, positions=positions), swapped)
