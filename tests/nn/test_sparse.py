"""Sparse patterns: equal to dense attention under the same mask, and paid by the score."""

from dataclasses import dataclass

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from minillm.models.gpt import gpt_tiny
from minillm.nn import MultiHeadAttention, scaled_dot_product_attention
from minillm.nn.sparse import (
    Block,
    EveryNth,
    SparseAttention,
    Summaries,
    Window,
    alternate,
    fixed,
    sliding_window,
    strided,
)


def sees_window(i, j, w):
    return j in range(max(0, i - w + 1), i + 1)


def sees_strided(i, j, n):  # Child et al. 2019, 4.3: both sets of the strided pattern
    return max(0, i - n) <= j <= i or (j <= i and (i - j) % n == 0)


def sees_fixed(i, j, n, c):
    return j <= i and (i // n == j // n or j % n in range(n - c, n))


CASES = {
    "window 1": (sliding_window(1), lambda i, j: i == j),
    "window 4": (sliding_window(4), lambda i, j: sees_window(i, j, 4)),
    "window 50": (sliding_window(50), lambda i, j: j <= i),
    "strided 1": (strided(1), lambda i, j: j <= i),
    "strided 5": (strided(5), lambda i, j: sees_strided(i, j, 5)),
    "every 3rd": (SparseAttention(EveryNth(3)), lambda i, j: j <= i and (i - j) % 3 == 0),
    "fixed 5, 2": (fixed(5, 2), lambda i, j: sees_fixed(i, j, 5, 2)),
    "fixed 4, 4": (fixed(4, 4), lambda i, j: j <= i),
    "own block": (SparseAttention(Block(4)), lambda i, j: j <= i and i // 4 == j // 4),
    "summaries": (SparseAttention(Summaries(6, 1)), lambda i, j: j <= i and j % 6 == 5),
}
SIZES = [(1, 1), (17, 17), (1, 17), (5, 17), (16, 17), (3, 4), (12, 12)]
every_case = pytest.mark.parametrize("name", CASES)
every_size = pytest.mark.parametrize(("t", "s"), SIZES)


def brute_mask(sees, t, s):
    """The definition, pair by pair; query number i stands at position s - t + i."""
    return torch.tensor([[sees(s - t + i, j) for j in range(s)] for i in range(t)])


def qkv(t, s, h=6, g=2, p=3):
    torch.manual_seed(0)
    q = torch.randn(2, h, t, p, dtype=torch.float64, requires_grad=True)
    k = torch.randn(2, g, s, p, dtype=torch.float64, requires_grad=True)
    v = torch.randn(2, g, s, p, dtype=torch.float64, requires_grad=True)
    return q, k, v


@every_case
@every_size
def test_equals_dense_attention_with_the_brute_force_mask_gradients_too(name, t, s):
    op, sees = CASES[name]
    q, k, v = qkv(t, s)
    allowed = brute_mask(sees, t, s)
    assert torch.equal(op.mask(t, s), allowed)
    hidden = torch.rand(2, 1, 1, s) > 0.2
    bias = torch.randn(6, t, s, dtype=torch.float64)
    for mask, extra in ((None, None), (hidden, None), (hidden, bias)):
        ours = op(q, k, v, mask, bias=extra, causal=True)
        seen = allowed if mask is None else allowed & mask
        dense = scaled_dot_product_attention(q, k, v, seen, bias=extra)
        torch.testing.assert_close(ours, dense, atol=1e-13, rtol=0)
        probe = torch.randn_like(dense)
        for a, b in zip(
            torch.autograd.grad((ours * probe).sum(), (q, k, v)),
            torch.autograd.grad((dense * probe).sum(), (q, k, v)),
            strict=True,
        ):
            torch.testing.assert_close(a, b, atol=1e-12, rtol=0)


@every_case
@every_size
def test_the_work_done_is_the_scores_counted(name, t, s):
    op, _ = CASES[name]
    q, k, v = qkv(t, s)
    with FlopCounterMode(display=False) as counter:
        op(q, k, v)
    assert counter.get_total_flops() == 2 * 6 * 4 * 3 * op.n_scores(t, s)  # b h (2p + 2p)
    assert op.n_scores(t, s) >= op.mask(t, s).sum()


def test_work_grows_as_it_should():
    n = 1024
    dense = n * n
    assert sliding_window(64).n_scores(n) == n * (2 * 64 - 1)  # O(n w)
    assert strided(32).n_scores(n) == n * 63 + n * 32  # O(n √n): 32 = √n
    assert fixed(32).n_scores(n) == n * 32 + n * 32
    assert max(op.n_scores(n) for op in (sliding_window(64), strided(32), fixed(32))) < dense / 8
    for op in (sliding_window(64), strided(32)):  # and is used to two fifths or more
        assert op.mask(n).sum() > 0.4 * op.n_scores(n)
    ratio = strided(64).n_scores(4 * n) / strided(32).n_scores(n)
    assert 7.9 < ratio < 8.1  # four times the length, eight times the work: n √n


def test_one_new_token_costs_what_it_sees():
    assert sliding_window(64).n_scores(1, 1000) == 64
    assert strided(32).n_scores(1, 1000) == 32 + 32
    assert fixed(32).n_scores(1, 1000) == 32 + 31


def test_dense_attention_with_a_mask_pays_for_everything():
    q, k, v = qkv(17, 17)
    with FlopCounterMode(display=False) as counter:
        scaled_dot_product_attention(q, k, v, sliding_window(4).mask(17))
    assert counter.get_total_flops() == 2 * 6 * 4 * 3 * 17 * 17


def test_a_layer_with_a_window_decodes_token_by_token():
    class Cache:
        def __init__(self):
            self.k, self.v = torch.zeros(2, 1, 2, 0, 4, dtype=torch.float64)

        def append(self, k, v):
            self.k, self.v = torch.cat([self.k, k], dim=2), torch.cat([self.v, v], dim=2)
            return self.k, self.v

    torch.manual_seed(0)
    for op in (sliding_window(4), strided(3), fixed(4, 2)):
        layer = MultiHeadAttention(24, 6, n_kv_heads=2, attention=op).double()
        x, cache = torch.randn(1, 11, 24, dtype=torch.float64), Cache()
        steps = [layer(part, causal=True, cache=cache) for part in x.split([4, 1, 1, 3, 2], dim=1)]
        torch.testing.assert_close(
            torch.cat(steps, dim=1), layer(x, causal=True), atol=1e-12, rtol=0
        )


def test_a_query_without_keys_gives_zero_and_finite_gradients():
    q, k, v = qkv(5, 5)
    out = SparseAttention(Summaries(4, 1))(q, k, v)
    assert (out[:, :, :3] == 0).all()
    assert (out[:, :, 3:] != 0).all()
    for gradient in torch.autograd.grad(out.sum(), (q, k, v)):
        assert gradient.isfinite().all()


def test_large_scores_do_not_overflow():
    q, k, v = (x.detach() * 1e3 for x in qkv(9, 9))
    expected = scaled_dot_product_attention(q, k, v, strided(3).mask(9))
    torch.testing.assert_close(strided(3)(q, k, v), expected, atol=1e-9, rtol=0)


def test_dropout_keeps_the_mean_and_scales_the_rest():
    torch.manual_seed(0)
    q, k = torch.zeros(2, 1, 400, 12, 2)
    v = torch.ones(1, 400, 12, 1).expand(1, 400, 12, 2)
    out = strided(3)(q, k, v, dropout=0.5)
    assert abs(out.mean() - 1) < 0.05
    assert out.std() > 0.2


def test_alternate_gives_layers_their_operations_in_turn():
    model = gpt_tiny(31, n_layers=5)
    window = sliding_window(3)
    alternate(model.blocks, scaled_dot_product_attention, window)
    got = [block.attention.attention for block in model.blocks]
    assert got == [scaled_dot_product_attention, window] * 2 + [scaled_dot_product_attention]
    tokens = torch.randint(31, (1, 12))
    alternate(model.blocks, window)
    other = tokens.clone()
    other[0, 0] = (other[0, 0] + 1) % 31
    moved = (model(tokens) != model(other)).any(-1)[0]
    assert moved.nonzero().max() == 5 * (3 - 1)  # the reach of five layers of a window of 3


def test_bad_input_is_named():
    q, k, v = qkv(4, 4)
    with pytest.raises(ValueError, match="causal=True"):
        sliding_window(2)(q, k, v, causal=False)
    with pytest.raises(ValueError, match="window must be a whole number"):
        sliding_window(0)
    with pytest.raises(ValueError, match="kept is 5"):
        fixed(4, 5)
    with pytest.raises(ValueError, match="no pattern"):
        SparseAttention()
    with pytest.raises(ValueError, match="no attention"):
        alternate([])


# --- named wrong versions --------------------------------------------------------------------


@dataclass(frozen=True)
class WindowWithoutSelf(Window):
    def allows(self, i, j):
        return (j < i) & (i - j <= self.window)


@dataclass(frozen=True)
class WindowOfOneMore(Window):
    def allows(self, i, j):
        return (j <= i) & (i - j <= self.window)


@dataclass(frozen=True)
class WindowWithinItsBlock(Window):
    def groups(self, t, s):  # keys of the query's own block only
        rows, _ = super().groups(t, s)
        return rows, rows + s - t


@dataclass(frozen=True)
class WindowAlignedTopLeft(Window):
    def groups(self, t, s):  # forgets that a cache holds s - t older keys
        rows, columns = super().groups(t, s)
        return rows, columns - (s - t)


@dataclass(frozen=True)
class EveryNthFromTheStart(EveryNth):
    def allows(self, i, j):
        return (j <= i) & (j % self.stride == 0)


class CountsPairsTwice(SparseAttention):
    def _part(self, n, *args):
        return SparseAttention(self.patterns[n])._part(0, *args)


class AveragesThePatterns(SparseAttention):
    def __call__(self, *args, **kwargs):  # two softmaxes instead of one
        return sum(SparseAttention(p)(*args, **kwargs) for p in self.patterns) / 2


WRONG = {
    "without self": (SparseAttention(WindowWithoutSelf(4)), "window 4"),
    "one more": (SparseAttention(WindowOfOneMore(4)), "window 4"),
    "within its block": (SparseAttention(WindowWithinItsBlock(4)), "window 4"),
    "top left": (SparseAttention(WindowAlignedTopLeft(4)), "window 4"),
    "from the start": (SparseAttention(Window(5), EveryNthFromTheStart(5)), "strided 5"),
    "pairs twice": (CountsPairsTwice(Window(5), EveryNth(5)), "strided 5"),
    "averaged": (AveragesThePatterns(Window(5), EveryNth(5)), "strided 5"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_version_is_rejected(name):
    op, right = WRONG[name]
    q, k, v = qkv(13, 17)
    expected = scaled_dot_product_attention(q, k, v, brute_mask(CASES[right][1], 13, 17))
    assert (op(q, k, v) - expected).abs().max() > 1e-3
