"""Positions inside whole attention layers of transformers, in float64, weights with noise.

The references round angles, slopes and softmaxes to float32; the fixture lifts those casts.
"""

from functools import partial

import pytest
import torch
from transformers import BloomConfig, GlmConfig, GPTJConfig, LlamaConfig, MptConfig, T5Config
from transformers.models.bloom.modeling_bloom import BloomAttention, build_alibi_tensor
from transformers.models.glm.modeling_glm import GlmAttention, GlmRotaryEmbedding
from transformers.models.gptj.modeling_gptj import GPTJAttention
from transformers.models.llama.modeling_llama import LlamaAttention, LlamaRotaryEmbedding
from transformers.models.marian.modeling_marian import MarianSinusoidalPositionalEmbedding
from transformers.models.mpt.modeling_mpt import MptAttention, build_mpt_alibi_tensor
from transformers.models.t5.modeling_t5 import T5Attention

from minillm.nn import (
    DynamicRotary,
    MultiHeadAttention,
    RelativeBias,
    Rotary,
    alibi_bias,
    alibi_slopes,
    causal_mask,
    distances,
    llama3_scaling,
    ntk_aware,
    ntk_by_parts,
    position_interpolation,
    rotary_frequencies,
    rotate_halves,
    rotate_pairs,
    scaled_dot_product_attention,
    sinusoidal,
    t5_buckets,
    yarn,
    yarn_scale,
)

ATOL = 1e-9
D, H, G, P = 20, 4, 2, 16  # heads of 16: not d / h
TRAINED, FACTOR, BASE = 64, 4.0, 100.0
ROW = torch.arange(150)


@pytest.fixture(autouse=True)
def _float64(monkeypatch):
    """Double precision everywhere, also where the references cast to what they call float32."""
    torch.set_default_dtype(torch.float64)
    for name in ("float32", "float"):
        monkeypatch.setattr(torch, name, torch.float64)
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
    monkeypatch.setattr(torch, "FloatTensor", torch.DoubleTensor)
    yield
    monkeypatch.undo()
    torch.set_default_dtype(torch.float32)


def stream(t, d=D):
    x = torch.randn(2, t, d, generator=torch.Generator().manual_seed(3))
    return x.requires_grad_()


def hidden(t):
    """The additive causal mask that layers of transformers want."""
    return torch.zeros(t, t).masked_fill(~causal_mask(t), torch.finfo(torch.float64).min)[
        None, None
    ]


def linears(ours, theirs, names):
    """Pairs of the parameters of four projections; a name or a function that slices a fused one."""
    parts = (ours.query, ours.key, ours.value, ours.output)
    pairs = []
    for part, name in zip(parts, names, strict=True):
        other = theirs.get_submodule(name)
        pairs += [(part.get_parameter(n), p) for n, p in other.named_parameters()]
    return pairs


def worst(ours, theirs, x, pairs):
    """(largest difference of outputs, of all gradients); weights go from theirs to ours."""
    with torch.no_grad():
        for mine, other in pairs:
            mine.copy_(other() if callable(other) else other)
    owned = [(mine, other) for mine, other in pairs if not callable(other)]
    a, b = ours(x), theirs(x)
    probe = torch.randn(a.shape, generator=torch.Generator().manual_seed(4))
    mine = torch.autograd.grad((a * probe).sum(), [x, *(m for m, _ in owned)])
    other = torch.autograd.grad((b * probe).sum(), [x, *(o for _, o in owned)])
    assert min(w.abs().max() for w in other) > 1e-6, "a gradient that says nothing"
    errors = [(u - w).abs().max().item() for u, w in zip(mine, other, strict=True)]
    return (a - b).abs().max().item(), max(errors)


def check(found, record, model, oracle):
    record(model, oracle, "output", found[0])
    record(model, oracle, "gradients", found[1])
    assert max(found) < ATOL


# --- RoPE in halves: Llama, with each of its scalings --------------------------------------------

THETA = rotary_frequencies(P, base=BASE)
LONG = {"factor": FACTOR, "original_max_position_embeddings": TRAINED}
LLAMA3 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0}
CASES = {
    "RoPE, halves": ({"rope_type": "default"}, lambda: Rotary(THETA)),
    "RoPE, interpolated": (
        {"rope_type": "linear", "factor": FACTOR},
        lambda: Rotary(position_interpolation(THETA, FACTOR)),
    ),
    "RoPE, dynamic NTK": (
        {"rope_type": "dynamic", "factor": 1.0},
        lambda: DynamicRotary(P, TRAINED, base=BASE),
    ),
    "RoPE, dynamic NTK, factor 4": (
        {"rope_type": "dynamic", "factor": FACTOR},
        lambda: DynamicRotary(P, TRAINED, factor=FACTOR, base=BASE),
    ),
    "RoPE, NTK": (  # the dynamic rule with factor 1 at this length is the fixed one
        {"rope_type": "dynamic", "factor": 1.0},
        lambda: Rotary(ntk_aware(THETA, len(ROW) / TRAINED)),
    ),
    "RoPE, YaRN": (
        {"rope_type": "yarn"} | LONG,
        lambda: Rotary(yarn(THETA, FACTOR, TRAINED), scale=yarn_scale(FACTOR)),
    ),
    "RoPE, YaRN with borders 2 and 8": (
        {"rope_type": "yarn", "beta_slow": 2.0, "beta_fast": 8.0} | LONG,
        lambda: Rotary(yarn(THETA, FACTOR, TRAINED, slow=2, fast=8), scale=yarn_scale(FACTOR)),
    ),
    "RoPE, Llama 3.1": (
        {"rope_type": "llama3"} | LONG | LLAMA3,
        lambda: Rotary(llama3_scaling(THETA, FACTOR, TRAINED)),
    ),
}


def llama(perturb, parameters, rotary, offset=0):
    """One attention layer of Llama with grouped heads and ours: functions of x, and weights."""
    config = LlamaConfig(
        hidden_size=D, num_attention_heads=H, num_key_value_heads=G, head_dim=P,
        max_position_embeddings=TRAINED, rope_parameters={"rope_theta": BASE} | parameters,
    )  # fmt: skip
    config._attn_implementation = "eager"
    theirs = perturb(LlamaAttention(config, layer_idx=0).eval(), seed=1)
    ours = MultiHeadAttention(D, H, n_kv_heads=G, d_head=P, bias=False, rotary=rotary)
    positions, t = (ROW + offset)[None], len(ROW)

    def reference(x):
        angles = LlamaRotaryEmbedding(config)(x, positions)
        return theirs(x, position_embeddings=angles, attention_mask=hidden(t))[0]

    pairs = linears(ours, theirs, ("q_proj", "k_proj", "v_proj", "o_proj"))
    return lambda x: ours(x, causal=True, positions=positions), reference, pairs


@pytest.mark.parametrize("name", CASES)
def test_rope_in_halves_and_its_scalings(name, perturb, record):
    parameters, build = CASES[name]
    ours, theirs, pairs = llama(perturb, parameters, build())
    check(worst(ours, theirs, stream(len(ROW)), pairs), record, name, "LlamaAttention")


def test_rope_with_offset_positions(perturb, record):
    ours, theirs, pairs = llama(perturb, {"rope_type": "default"}, Rotary(THETA), offset=1000)
    found = worst(ours, theirs, stream(len(ROW)), pairs)
    check(found, record, "RoPE, halves, positions from 1000", "LlamaAttention")


def backwards(x, cos, sin):
    return rotate_halves(x, cos, -sin)


WRONG = {
    "no rotation": ("RoPE, halves", lambda: None),
    "the other layout": ("RoPE, halves", lambda: Rotary(THETA, rotate=rotate_pairs)),
    "the other way": ("RoPE, halves", lambda: Rotary(THETA, rotate=backwards)),
    "half the head": ("RoPE, halves", lambda: Rotary(THETA[::2])),
    "base 10000": ("RoPE, halves", lambda: Rotary(rotary_frequencies(P))),
    "fp16 inv_freq": ("RoPE, halves", lambda: Rotary(THETA.half().double())),
    "multiplied": ("RoPE, interpolated", lambda: Rotary(THETA * FACTOR)),
    "base times factor": (
        "RoPE, NTK",
        lambda: Rotary(rotary_frequencies(P, base=BASE * len(ROW) / TRAINED)),
    ),
    "no temperature": ("RoPE, YaRN", lambda: Rotary(yarn(THETA, FACTOR, TRAINED))),
    "temperature squared": (
        "RoPE, YaRN",
        lambda: Rotary(yarn(THETA, FACTOR, TRAINED), scale=yarn_scale(FACTOR) ** 2),
    ),
    "the paper's ramp": (
        "RoPE, YaRN",
        lambda: Rotary(ntk_by_parts(THETA, FACTOR, TRAINED), scale=yarn_scale(FACTOR)),
    ),
    "the stretched length": (
        "RoPE, YaRN",
        lambda: Rotary(yarn(THETA, FACTOR, 4 * TRAINED), scale=yarn_scale(FACTOR)),
    ),
    "YaRN's borders": ("RoPE, Llama 3.1", lambda: Rotary(ntk_by_parts(THETA, FACTOR, TRAINED))),
    "no scaling": ("RoPE, dynamic NTK", lambda: Rotary(THETA)),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_version_is_rejected(name, perturb):
    case, build = WRONG[name]
    ours, theirs, pairs = llama(perturb, CASES[case][0], build())
    assert worst(ours, theirs, stream(len(ROW)), pairs)[0] > 1e-4


def test_the_rotation_alone():
    """Not only what attention makes of it, which is blind to turning everything further."""
    q = torch.randn(1, H, 9, P, generator=torch.Generator().manual_seed(0))
    row = torch.arange(9)[None]
    config = LlamaConfig(hidden_size=D, num_attention_heads=H, head_dim=P, rope_theta=10000.0)
    cos, sin = LlamaRotaryEmbedding(config)(q, row)
    f = P // 2
    right = rotate_halves(q, cos[..., :f], sin[..., :f])
    theta = rotary_frequencies(P)
    assert (Rotary(theta)(q, row) - right).abs().max() < ATOL
    assert (Rotary(theta, rotate=backwards)(q, row) - right).abs().max() > 0.1


# --- RoPE in pairs, on a part of the head ---------------------------------------------------------


def glm(perturb, rotary):
    config = GlmConfig(
        hidden_size=D, num_attention_heads=H, num_key_value_heads=G, head_dim=P,
        attention_bias=True,
        rope_parameters={"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5},
    )  # fmt: skip
    config._attn_implementation = "eager"
    theirs = perturb(GlmAttention(config, layer_idx=0).eval(), seed=1)
    ours = MultiHeadAttention(D, H, n_kv_heads=G, d_head=P, rotary=rotary)
    row = torch.arange(11)[None] + 5

    def reference(x):
        angles = GlmRotaryEmbedding(config)(x, row)
        return theirs(x, position_embeddings=angles, attention_mask=hidden(11))[0]

    pairs = linears(ours, theirs, ("q_proj", "k_proj", "v_proj", "o_proj"))
    return lambda x: ours(x, causal=True, positions=row), reference, pairs, ours


def gptj(perturb, rotary):
    d = 24
    config = GPTJConfig(
        n_embd=d, n_head=H, rotary_dim=4, n_positions=32, resid_pdrop=0.0, attn_pdrop=0.0
    )
    config._attn_implementation = "eager"
    theirs = GPTJAttention(config, layer_idx=0).eval()
    table = theirs.embed_positions.clone()
    perturb(theirs, seed=1)
    theirs.embed_positions = table  # sines and cosines, not weights
    ours = MultiHeadAttention(d, H, bias=False, rotary=rotary)
    row = torch.arange(11)[None] + 5

    def reference(x):
        return theirs(x, attention_mask=hidden(11), position_ids=row.expand(2, -1))[0]

    pairs = linears(ours, theirs, ("q_proj", "k_proj", "v_proj", "out_proj"))
    return lambda x: ours(x, causal=True, positions=row), reference, pairs, ours


PAIRS = {"GlmAttention": (glm, 8, D), "GPTJAttention": (gptj, 4, 24)}


@pytest.mark.parametrize("oracle", PAIRS)
def test_partial_rope_in_pairs(oracle, perturb, record):
    build, size, d = PAIRS[oracle]
    ours, theirs, pairs, layer = build(
        perturb, Rotary(rotary_frequencies(size), rotate=rotate_pairs)
    )
    if oracle == "GlmAttention":  # its output projection has no bias
        pairs.append((layer.output.bias, lambda: torch.zeros(D)))
    check(worst(ours, theirs, stream(11, d), pairs), record, "partial RoPE, pairs", oracle)
    wrong = {
        "halves": Rotary(rotary_frequencies(size)),
        "the whole head": Rotary(rotary_frequencies(layer.d_head), rotate=rotate_pairs),
    }
    for name, rotary in wrong.items():
        layer.rotary = rotary
        assert worst(ours, theirs, stream(11, d), pairs)[0] > 1e-3, name


# --- biases ------------------------------------------------------------------------------------


def t5(perturb, decoder, bias):
    config = T5Config(
        d_model=D, d_kv=6, num_heads=H, relative_attention_num_buckets=8,
        relative_attention_max_distance=20, is_decoder=decoder, dropout_rate=0.0,
    )  # fmt: skip
    config._attn_implementation = "eager"
    theirs = perturb(
        T5Attention(config, has_relative_attention_bias=True, layer_idx=0, is_causal=decoder),
        seed=1,
    )
    unscaled = partial(scaled_dot_product_attention, scale=1.0)
    ours = MultiHeadAttention(D, H, d_head=6, bias=False, attention=unscaled)
    pairs = linears(ours, theirs, ("q", "k", "v", "o"))
    pairs.append((bias.weight, theirs.relative_attention_bias.weight))
    mask = hidden(50) if decoder else torch.zeros(1, 1, 50, 50)
    return (
        lambda x: ours(x, causal=decoder, bias=bias(distances(50))),
        lambda x: theirs(x, mask=mask)[0],
        pairs,
    )


@pytest.mark.parametrize("decoder", [False, True])
def test_relative_bias(decoder, perturb, record):
    options = {"n_buckets": 8, "max_distance": 20}
    name = "T5 bias, " + ("decoder" if decoder else "encoder")
    bias = RelativeBias(H, bidirectional=not decoder, **options)
    ours, theirs, pairs = t5(perturb, decoder, bias)
    check(worst(ours, theirs, stream(50), pairs), record, name, "T5Attention")
    right = bias.forward
    wrong = {
        "the other kind": RelativeBias(H, bidirectional=decoder, **options),
        "max_distance": RelativeBias(H, bidirectional=not decoder, n_buckets=8, max_distance=40),
    }
    for name, other in wrong.items():
        other.weight = bias.weight
        bias.forward = other.forward
        assert worst(ours, theirs, stream(50), pairs)[0] > 1e-3, name
    for name, shift in (("sign", lambda n: -n), ("off by one", lambda n: n - 1)):
        bias.forward = lambda n, shift=shift: right(shift(n))
        assert worst(ours, theirs, stream(50), pairs)[0] > 1e-3, name


def test_buckets_at_every_distance(record, monkeypatch):
    monkeypatch.undo()  # the shipped float32 arithmetic
    torch.set_default_dtype(torch.float32)
    far = torch.arange(-1000, 1001)
    errors = 0
    for n_buckets, max_distance in ((32, 128), (32, 200), (16, 64), (8, 20), (64, 512)):
        for both in (True, False):
            theirs = T5Attention._relative_position_bucket(far, both, n_buckets, max_distance)
            options = {"n_buckets": n_buckets, "max_distance": max_distance}
            ours = t5_buckets(far, bidirectional=both, **options)
            errors = max(errors, (ours - theirs).abs().max().item())
    record("T5 buckets", "T5Attention", "distances to 1000", errors)
    assert errors == 0


def bloom(perturb, n_heads, bias):
    d = 5 * n_heads
    config = BloomConfig(hidden_size=d, n_head=n_heads, hidden_dropout=0.0, attention_dropout=0.0)
    theirs = perturb(BloomAttention(config, layer_idx=0).eval(), seed=1)
    ours = MultiHeadAttention(d, n_heads)
    fused = theirs.query_key_value
    pairs = [(ours.output.weight, theirs.dense.weight), (ours.output.bias, theirs.dense.bias)]
    for i, part in enumerate((ours.query, ours.key, ours.value)):
        heads = (lambda i=i: fused.weight.view(n_heads, 3, 5, d)[:, i].flatten(0, 1),
                 lambda i=i: fused.bias.view(n_heads, 3, 5)[:, i].flatten())  # fmt: skip
        pairs += [(part.weight, heads[0]), (part.bias, heads[1])]
    alibi = build_alibi_tensor(torch.ones(2, 9), n_heads, torch.float64)
    return (
        lambda x: ours(x, causal=True, bias=bias),
        lambda x: theirs(x, torch.zeros_like(x), alibi, hidden(9))[0],
        pairs,
    )


def mpt(perturb, n_heads, bias):
    d = 5 * n_heads
    config = MptConfig(d_model=d, n_heads=n_heads, n_layers=1)
    theirs = perturb(MptAttention(config, layer_idx=0).eval(), seed=1)
    ours = MultiHeadAttention(d, n_heads, bias=False)
    pairs = [(ours.output.weight, theirs.out_proj.weight)]
    for i, part in enumerate((ours.query, ours.key, ours.value)):
        pairs.append((part.weight, lambda i=i: theirs.Wqkv.weight[i * d : (i + 1) * d]))
    alibi = build_mpt_alibi_tensor(n_heads, 9)
    return (
        lambda x: ours(x, causal=True, bias=bias),
        lambda x: theirs(x, alibi, attention_mask=~causal_mask(9))[0],
        pairs,
    )


@pytest.mark.parametrize("n_heads", [4, 6, 12])
@pytest.mark.parametrize(("build", "oracle"), [(bloom, "BloomAttention"), (mpt, "MptAttention")])
def test_alibi(build, oracle, n_heads, perturb, record):
    bias = alibi_bias(distances(9), alibi_slopes(n_heads))
    found = worst(*(parts := build(perturb, n_heads, bias))[:2], stream(9, 5 * n_heads), parts[2])
    check(found, record, f"ALiBi, {n_heads} heads", oracle)
    formula = 2.0 ** -(8 * torch.arange(1, n_heads + 1) / n_heads)
    wrong = {
        "sign": -bias,
        "order of the heads": bias.flip(0),
        "one slope": bias[:1].expand_as(bias),
        "none": 0 * bias,
    }
    if n_heads & (n_heads - 1):
        wrong["the power-of-two formula"] = alibi_bias(distances(9), formula)
    for name, other in wrong.items():
        ours, theirs, pairs = build(perturb, n_heads, other)
        assert worst(ours, theirs, stream(9, 5 * n_heads), pairs)[0] > 1e-3, name


# --- sinusoids ---------------------------------------------------------------------------------


def test_sinusoids(record):
    """Marian has all sines first; the paper, and so `sinusoidal`, has them in turn."""
    theirs = MarianSinusoidalPositionalEmbedding(50, 12).create_weight()
    ours = sinusoidal(50, 12)
    error = (torch.cat([ours[:, 0::2], ours[:, 1::2]], dim=1) - theirs).abs().max()
    record("sinusoids", "MarianSinusoidalPositionalEmbedding", "table, reordered", error)
    assert error < ATOL
    assert (ours - theirs).abs().max() > 0.1
