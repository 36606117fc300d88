"""Latent attention: both forms against ordinary attention, and what the cache holds."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from minillm.nn.attention import scaled_dot_product_attention
from minillm.nn.latent import (
    LatentAttention,
    LatentCache,
    absorbed_attention,
    cheaper_attention,
    expanded_attention,
)
from minillm.nn.ops import TORCH_OPS
from minillm.nn.rotary import Rotary, rotary_frequencies, rotate_pairs

SIZES = {"kv_rank": 7, "d_nope": 4, "d_rope": 6, "d_value": 5}
CORES = [expanded_attention, absorbed_attention, cheaper_attention]


def rotary():
    return Rotary(rotary_frequencies(6, base=50), rotate=rotate_pairs)


def layer(core=cheaper_attention, seed=0, **changes):
    torch.manual_seed(seed)
    made = LatentAttention(12, 3, **{**SIZES, **changes}, rotary=rotary(), core=core)
    return made.double()


def inputs(b=2, t=9, seed=1):
    return torch.randn(b, t, 12, generator=torch.Generator().manual_seed(seed)).double()


def head_by_head(mla, x, positions):
    """Keys and values written out, one head after the other, one query after the other."""
    b, t, _ = x.shape
    latent = mla.latent_norm(mla.latent(x))
    shared = mla.rotary(mla.rope_key(x)[:, None], positions)[:, 0]
    q = mla.query(x).view(b, t, 3, 10)
    outs = []
    for h in range(3):
        k = latent @ mla.key.weight[4 * h : 4 * h + 4].T
        v = latent @ mla.value.weight[5 * h : 5 * h + 5].T
        turned = mla.rotary(q[:, None, :, h, 4:], positions)[:, 0]
        out = torch.zeros(b, t, 5, dtype=x.dtype)
        for row in range(b):
            for i in range(t):
                scores = k[row, : i + 1] @ q[row, i, h, :4] + shared[row, : i + 1] @ turned[row, i]
                out[row, i] = (scores / 10**0.5).softmax(0) @ v[row, : i + 1]
        outs.append(out)
    return mla.output(torch.cat(outs, dim=-1))


@pytest.mark.parametrize("core", CORES)
@pytest.mark.parametrize("op", [scaled_dot_product_attention, TORCH_OPS.attention])
def test_equals_attention_written_out(core, op):
    mla, x = layer(core), inputs()
    mla.attention = op
    positions = torch.arange(9)[None] + 4
    expected = head_by_head(mla, x, positions)
    assert torch.allclose(mla(x, causal=True, positions=positions), expected, atol=1e-12)


@pytest.mark.parametrize("d_value", [3, 10, 17])
@pytest.mark.parametrize("q_rank", [None, 8])
def test_both_forms_agree_with_gradients_for_any_width_of_values(d_value, q_rank):
    x = inputs().requires_grad_()
    results = []
    for core in CORES:
        mla = layer(core, d_value=d_value, q_rank=q_rank)
        out = mla(x, causal=True)
        parameters = list(mla.parameters())
        results.append((out, *torch.autograd.grad(out.square().sum(), [x, *parameters])))
    for other in results[1:]:
        assert all(torch.allclose(a, b, atol=1e-11) for a, b in zip(results[0], other, strict=True))
    assert all(g.abs().max() > 1e-6 for g in results[0])


@pytest.mark.parametrize("core", CORES)
@pytest.mark.parametrize("chunks", [[1] * 9, [5, 1, 3]])
def test_cached_equals_in_one_go(core, chunks):
    mla, x = layer(core), inputs()
    expected = mla(x, causal=True)
    cache = LatentCache(1, 2, 9, kv_rank=7, d_rope=6, dtype=torch.float64)
    with torch.no_grad():
        parts, start = [], 0
        for size in chunks:
            positions = torch.arange(start, start + size)[None]
            part = x[:, start : start + size]
            parts.append(mla(part, causal=True, positions=positions, cache=cache[0]))
            start += size
    assert torch.allclose(torch.cat(parts, 1), expected, atol=1e-12)
    assert cache.length == 9


def test_the_cache_holds_the_latent_and_one_rotary_key_and_nothing_else():
    cache = LatentCache(3, 2, 11, kv_rank=7, d_rope=6, dtype=torch.float32)
    assert cache.n_bytes == 3 * 2 * 11 * (7 + 6) * 4
    mla = layer(seed=0)
    seen = []
    cached = LatentCache(1, 2, 9, kv_rank=7, d_rope=6, dtype=torch.float64)
    append = cached[0].append
    cached[0].append = lambda k, v: seen.append((k.shape, v.shape)) or append(k, v)
    with torch.no_grad():
        mla(inputs(), causal=True, positions=torch.arange(9)[None], cache=cached[0])
    assert seen == [((2, 1, 9, 7), (2, 1, 9, 6))]


def test_cheaper_is_what_multiplies_less():
    """One query over a long past is absorbed; a prompt is expanded."""
    sizes = {"kv_rank": 32, "d_nope": 16, "d_rope": 6, "d_value": 16}

    def count(core, t, s):
        mla = layer(core, **sizes)
        cache = LatentCache(1, 1, s, kv_rank=32, d_rope=6, dtype=torch.float64)
        with torch.no_grad():
            past = torch.arange(s - t)[None]
            if s > t:
                mla(inputs(1, s - t), causal=True, positions=past, cache=cache[0])
            with FlopCounterMode(display=False) as counter:
                new = torch.arange(s - t, s)[None]
                mla(inputs(1, t), causal=True, positions=new, cache=cache[0])
        return counter.get_total_flops()

    decode = {core.__name__: count(core, 1, 200) for core in CORES}
    prompt = {core.__name__: count(core, 200, 200) for core in CORES}
    assert decode["absorbed_attention"] * 3 < decode["expanded_attention"]
    assert prompt["expanded_attention"] * 1.2 < prompt["absorbed_attention"]
    for counts in (decode, prompt):
        assert counts["cheaper_attention"] == min(counts.values())


def test_rollback_and_reorder():
    cache = LatentCache(2, 2, 5, kv_rank=3, d_rope=2)
    latents, keys = torch.randn(2, 1, 4, 3), torch.randn(2, 1, 4, 2)
    cache[0].append(latents, keys)
    assert cache.length == 0, "the second layer has not stored them yet"
    cache[1].append(latents, keys)
    cache.rollback(2)
    assert cache.length == 2
    cache.reorder(torch.tensor([1, 1]))
    got = cache[1].append(latents[:, :, :1], keys[:, :, :1])
    assert torch.equal(got[0][0, 0, :2], latents[1, 0, :2])
    assert torch.equal(got[1][1, 0, :2], keys[1, 0, :2])
    assert torch.equal(got[0][0, 0, 2], latents[0, 0, 0])


WRONG = {
    "scale_without_the_rotary_part": lambda mla: setattr(mla, "scale", 4**-0.5),
    "nothing_turned": lambda mla: setattr(mla.rotary, "rotate", lambda x, cos, sin: x),
    "latent_not_normalized": lambda mla: setattr(mla, "latent_norm", torch.nn.Identity()),
}


@pytest.mark.parametrize("name", list(WRONG))
def test_wrong_version_is_rejected(name):
    right, mla = layer(), layer()
    WRONG[name](mla)
    x = inputs()
    assert (right(x, causal=True) - mla(x, causal=True)).abs().max() > 1e-3


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: layer(kv_rank=0), "kv_rank"),
        (lambda: LatentCache(1, 0, 5, kv_rank=3, d_rope=2), "batch"),
        (lambda: LatentCache(1, 1, 5, kv_rank=3, d_rope=2).rollback(1), "roll back"),
        (
            lambda: LatentCache(1, 1, 2, kv_rank=3, d_rope=2)[0].append(
                torch.zeros(1, 1, 3, 3), torch.zeros(1, 1, 3, 2)
            ),
            "new_cache",
        ),
        (
            lambda: layer()(
                inputs(), cache=LatentCache(1, 2, 9, kv_rank=7, d_rope=6, dtype=torch.float64)[0]
            ),
            "positions",
        ),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
