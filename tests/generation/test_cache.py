"""A cached pass equals an uncached one to 1e-10 in float64, in every way a cache can be filled."""

import pytest
import torch

from minillm.generation.cache import ContiguousCache, ContiguousLayer
from minillm.models.gpt import GPT, GPTConfig, gpt1
from minillm.nn.attention import Cache, LayerCache, MultiHeadAttention
from minillm.nn.ops import TORCH_OPS, Ops

V, CONTEXT = 37, 24


def noisy(module, seed=0):
    """Far from the default initialization, where little would be noticed."""
    g = torch.Generator().manual_seed(seed)
    module = module.double().eval()
    with torch.no_grad():
        for p in module.parameters():
            p += torch.randn(p.shape, generator=g, dtype=p.dtype) * 0.3
    return module


def gpt(ops=None):
    return noisy(GPT(GPTConfig(V, CONTEXT, d_model=20, n_layers=3, n_heads=4), ops=ops))


def random_tokens(b, t, seed=1):
    return torch.randint(0, V, (b, t), generator=torch.Generator().manual_seed(seed))


def close(a, b):
    return a.shape == b.shape and torch.allclose(a, b, rtol=0, atol=1e-10)


def in_chunks(model, tokens, cache, sizes, **masked):
    """Logits of all tokens, read in pieces of these sizes."""
    logits, start = [], cache.length
    for n in sizes:
        end = start + n
        kwargs = {}
        if masked:
            kwargs["attention_mask"] = masked["attention_mask"][:, :end]
            kwargs["positions"] = masked["positions"][:, start:end]
        logits.append(model(tokens[:, start:end], cache=cache, **kwargs))
        start = end
    return torch.cat(logits, 1)


@pytest.fixture(params=[Ops(), TORCH_OPS], ids=["reference", "torch"])
def model(request):
    return gpt(request.param)


@torch.no_grad()
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("sizes", [[13], [1] * 13, [5, 1, 1, 6], [4, 4, 5], [12, 1]])
def test_cached_equals_uncached(model, batch, sizes):
    tokens = random_tokens(batch, 13)
    cache = ContiguousCache.for_model(model, batch)
    assert close(in_chunks(model, tokens, cache, sizes), model(tokens))
    assert cache.length == 13


@torch.no_grad()
def test_gpt1_too():
    model = noisy(gpt1(vocab_size=V, max_seq_len=CONTEXT, d_model=20, n_layers=2, n_heads=2))
    tokens = random_tokens(2, 9)
    cache = ContiguousCache.for_model(model, 2)
    assert close(in_chunks(model, tokens, cache, [4, 1, 1, 3]), model(tokens))


@torch.no_grad()
@pytest.mark.parametrize("sizes", [[11], [6, 1, 1, 3], [1] * 11, [2, 9]])
def test_left_padding_equals_each_row_alone(model, sizes):
    tokens, pads = random_tokens(3, 11), [0, 4, 9]
    mask = torch.stack([torch.arange(11) >= n for n in pads])
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    cache = ContiguousCache.for_model(model, 3)
    logits = in_chunks(model, tokens, cache, sizes, attention_mask=mask, positions=positions)
    for row, n in enumerate(pads):
        assert close(logits[row : row + 1, n:], model(tokens[row : row + 1, n:]))


@torch.no_grad()
def test_rollback_and_rewrite(model):
    old, new = random_tokens(2, 12, 1), random_tokens(2, 12, 2)
    edited = torch.cat([old[:, :7], new[:, 7:]], 1)
    cache = ContiguousCache.for_model(model, 2)
    model(old, cache=cache)
    cache.rollback(7)
    assert cache.length == 7
    assert close(in_chunks(model, edited, cache, [2, 3]), model(edited)[:, 7:])
    cache.rollback(0)
    assert close(model(new, cache=cache), model(new))


@torch.no_grad()
def test_a_cache_that_is_exactly_full_and_one_that_overflows(model):
    tokens = random_tokens(1, 10)
    cache = ContiguousCache.for_model(model, 1, max_seq_len=9)
    assert close(in_chunks(model, tokens, cache, [8, 1]), model(tokens[:, :9]))
    with pytest.raises(
        ValueError, match=r"room for 9 tokens, holds 9 and was given 1 more.*larger"
    ):
        model(tokens[:, 9:], cache=cache)
    assert cache.length == 9


@torch.no_grad()
def test_grouped_heads():
    layer = noisy(MultiHeadAttention(24, 6, n_kv_heads=2, d_head=5))
    x = torch.randn(2, 8, 24, dtype=torch.float64)
    cache = ContiguousCache(1, 2, 2, 8, 5, dtype=torch.float64)[0]
    parts = [layer(part, causal=True, cache=cache) for part in x.split([3, 1, 4], dim=1)]
    assert close(torch.cat(parts, 1), layer(x, causal=True))


# --- wrong caches are noticed


class NotAdvanced(ContiguousLayer):
    """Writes every step to the same place."""

    def append(self, k, v):
        out = super().append(k, v)
        self.length -= k.shape[2]
        return out


class SharedBetweenRows(ContiguousLayer):
    """All rows see the first row's keys."""

    def append(self, k, v):
        k_all, v_all = super().append(k, v)
        return k_all[:1].expand_as(k_all), v_all


class SharedBetweenLayers(ContiguousLayer):
    """Every layer writes into one buffer (kept per batch size here)."""

    buffers = {}

    def __init__(self, keys, values):
        super().__init__(*self.buffers.setdefault(tuple(keys.shape), (keys, values)))


class NewestFirst(ContiguousLayer):
    """The order of keys does not matter to attention, except under a causal mask."""

    def append(self, k, v):
        k_all, v_all = super().append(k, v)
        return k_all.flip(2), v_all.flip(2)


class Forgetful(ContiguousLayer):
    """Returns the new keys only."""

    def append(self, k, v):
        super().append(k, v)
        return k, v


@torch.no_grad()
@pytest.mark.parametrize(
    "wrong", [NotAdvanced, SharedBetweenRows, SharedBetweenLayers, NewestFirst, Forgetful]
)
def test_wrong_caches_are_noticed(wrong):
    model, tokens = gpt(), random_tokens(3, 10)
    cache = ContiguousCache.for_model(model, 3)
    cache.layers = [wrong(layer.keys, layer.values) for layer in cache.layers]
    start, logits = 0, []
    for n in (4, 1, 1, 4):  # not via cache.length, which is part of what may be wrong
        positions = torch.arange(start, start + n).expand(3, n)
        logits.append(model(tokens[:, start : start + n], cache=cache, positions=positions))
        start += n
    assert not close(torch.cat(logits, 1), model(tokens))


@torch.no_grad()
def test_positions_that_are_not_offset_are_noticed():
    model, tokens = gpt(), random_tokens(2, 6)
    cache = ContiguousCache.for_model(model, 2)
    model(tokens[:, :5], cache=cache)
    wrong = model(tokens[:, 5:], cache=cache, positions=torch.zeros(2, 1, dtype=torch.long))
    assert not close(wrong, model(tokens)[:, 5:])


# --- the object itself


def test_protocol_shape_type_and_size():
    model = gpt()
    cache = ContiguousCache.for_model(model, 2, max_seq_len=7)
    assert isinstance(cache, Cache)
    assert isinstance(cache[0], LayerCache)
    assert cache.length == 0
    assert cache[1].keys.shape == (2, 4, 7, 5)
    assert cache[1].keys.dtype == torch.float64
    assert cache.n_bytes == 2 * 3 * 2 * 4 * 7 * 5 * 8
    assert ContiguousCache.for_model(model).max_seq_len == CONTEXT


def test_length_is_what_every_layer_holds():
    cache = ContiguousCache(2, 1, 1, 4, 3)
    k = torch.zeros(1, 1, 2, 3)
    cache[0].append(k, k)
    assert cache.length == 0  # the pass is not over
    cache[1].append(k, k)
    assert cache.length == 2


@torch.no_grad()
def test_an_interrupted_pass_can_be_rolled_back():
    model, tokens = gpt(), random_tokens(1, 8)
    cache = ContiguousCache.for_model(model)
    model(tokens[:, :3], cache=cache)
    cache[0].append(torch.ones(1, 4, 1, 5).double(), torch.ones(1, 4, 1, 5).double())
    cache.rollback(cache.length)
    assert close(model(tokens[:, 3:], cache=cache), model(tokens)[:, 3:])


@torch.no_grad()
@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
@pytest.mark.parametrize("place", ["blocks.0.ffn", "blocks.1.attention", "final_norm"])
def test_a_pass_that_fails_leaves_the_cache_as_it_was(model, place, error):
    tokens = random_tokens(2, 9)
    cache = ContiguousCache.for_model(model, 2)
    model(tokens[:, :3], cache=cache)

    def fail(*args):
        raise error

    hook = model.get_submodule(place).register_forward_pre_hook(fail)
    with pytest.raises(error):
        model(tokens[:, 3:], cache=cache)
    hook.remove()
    assert [layer.length for layer in cache.layers] == [3, 3, 3]
    assert close(in_chunks(model, tokens, cache, [2, 4]), model(tokens)[:, 3:])


@torch.no_grad()
@pytest.mark.parametrize(
    ("sizes", "dtype", "message"),
    [
        ((4, 2, 4, 9, 5), torch.float64, "the cache has 4 layers and the model 3"),
        ((2, 2, 4, 9, 5), torch.float64, "the cache has 2 layers and the model 3"),
        ((3, 1, 4, 9, 5), torch.float64, r"\(2, 4, 6, 5\).*cache for batch 1.*batch=2"),
        ((3, 2, 2, 9, 5), torch.float64, "with 2 key/value heads of size 5"),
        ((3, 2, 4, 9, 5), torch.float32, r"torch\.float64 do not fit a cache of torch\.float32"),
    ],
)
def test_the_cache_of_another_model_is_refused_unwritten(model, sizes, dtype, message):
    cache = ContiguousCache(*sizes, dtype=dtype)
    with pytest.raises(ValueError, match=message):
        model(random_tokens(2, 6), cache=cache)
    assert cache.length == 0
    assert all((layer.length, layer.keys.any()) == (0, False) for layer in cache.layers)


@torch.no_grad()
def test_half_precision_by_autocast_keeps_a_float32_cache():
    model, tokens = gpt().float(), random_tokens(1, 6)
    cache = ContiguousCache.for_model(model)
    with torch.autocast("cpu", torch.bfloat16):
        logits, whole = in_chunks(model, tokens, cache, [4, 2]), model(tokens)
    assert torch.allclose(logits, whole, atol=0.2 * float(whole.std()))


def test_errors_name_the_value():
    cache = ContiguousCache(1, 2, 4, 6, 5)
    with pytest.raises(ValueError, match=r"\(3, 4, 1, 5\).*batch 2 .*for_model\(model, batch=3\)"):
        cache[0].append(torch.zeros(3, 4, 1, 5), torch.zeros(3, 4, 1, 5))
    with pytest.raises(ValueError, match="roll back to 1 tokens: the cache holds 0"):
        cache.rollback(1)
    with pytest.raises(ValueError, match="roll back to -1"):
        cache.rollback(-1)
    with pytest.raises(ValueError, match="batch is 0"):
        ContiguousCache(1, 0, 4, 6, 5)
    with pytest.raises(ValueError, match="max_seq_len is 0"):
        ContiguousCache.for_model(gpt(), max_seq_len=0)
