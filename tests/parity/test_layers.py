"""Single layers against transformers, in float64 with noise on every weight.

Rotations are switched off (cosine 1, sine 0): they have tests of their own.
"""

import pytest
import torch
from transformers import (
    Gemma2Config,
    GPTJConfig,
    GPTNeoXConfig,
    LlamaConfig,
    ModernBertConfig,
    Qwen3Config,
    T5Config,
)
from transformers.models.gemma2.modeling_gemma2 import Gemma2DecoderLayer
from transformers.models.gpt_neox.modeling_gpt_neox import GPTNeoXLayer
from transformers.models.gptj.modeling_gptj import GPTJBlock
from transformers.models.llama.modeling_llama import LlamaMLP
from transformers.models.modernbert.modeling_modernbert import ModernBertMLP
from transformers.models.qwen3.modeling_qwen3 import Qwen3Attention
from transformers.models.t5.modeling_t5 import T5DenseGatedActDense

from minillm.nn import (
    FeedForward,
    GatedFeedForward,
    LayerNorm,
    MultiHeadAttention,
    ParallelBlock,
    PreNormBlock,
    RMSNorm,
    SandwichNormBlock,
    causal_mask,
    geglu,
    geglu_tanh,
    gelu_exact,
    gelu_tanh,
    swiglu,
)

ATOL = 1e-9
D, H, G, P, F = 20, 4, 2, 6, 28  # heads of 6: not d / h


@pytest.fixture(autouse=True)
def _float64(monkeypatch):
    """Double precision everywhere, also where the references cast to what they call float32."""
    torch.set_default_dtype(torch.float64)
    monkeypatch.setattr(torch, "float32", torch.float64)
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
    yield
    monkeypatch.undo()
    torch.set_default_dtype(torch.float32)


def stream(d=D, t=7):
    generator = torch.Generator().manual_seed(3)
    return torch.randn(2, t, d, generator=generator, requires_grad=True)


def hidden(t=7):
    """The additive mask and the idle rotation that layers of transformers want."""
    mask = torch.zeros(t, t).masked_fill(~causal_mask(t), torch.finfo(torch.float64).min)
    return mask[None, None]


def idle(size, t=7):
    return torch.ones(1, t, size), torch.zeros(1, t, size)


def compare(ours, theirs, x, pairs):
    """Largest differences of the outputs and of all gradients; weights go from theirs to ours."""
    with torch.no_grad():
        for mine, other in pairs:
            mine.copy_(other() if callable(other) else other)
    parameters = [(mine, other) for mine, other in pairs if not callable(other)]
    a, b = ours(x), theirs(x)
    probe = torch.randn(a.shape, generator=torch.Generator().manual_seed(4))
    mine = torch.autograd.grad((a * probe).sum(), [x, *(m for m, _ in parameters)])
    other = torch.autograd.grad((b * probe).sum(), [x, *(o for _, o in parameters)])
    errors = [(u - w).abs().max().item() for u, w in zip(mine, other, strict=True)]
    assert min(w.abs().max() for w in other) > 1e-6, "a gradient that says nothing"
    return (a - b).abs().max().item(), max(errors)


def far(ours, theirs, x, pairs):
    """Largest difference of the outputs alone."""
    with torch.no_grad():
        for mine, other in pairs:
            mine.copy_(other() if callable(other) else other)
        return (ours(x) - theirs(x)).abs().max()


def weights(part, other):
    """Pairs of the parameters of two layers with the same names."""
    return [(part.get_parameter(name), p) for name, p in other.named_parameters()]


def attend(theirs, size):
    """One of their attention layers as a function of x alone."""
    return lambda x: theirs(x, position_embeddings=idle(size), attention_mask=hidden())[0]


# --- feed-forward ------------------------------------------------------------------------------


def llama_mlp(perturb, gated=swiglu):
    theirs = perturb(
        LlamaMLP(LlamaConfig(hidden_size=D, intermediate_size=F, num_attention_heads=2)), seed=1
    )
    ours = GatedFeedForward(D, F, gated=gated)
    named = (("gate", "gate_proj"), ("up", "up_proj"), ("down", "down_proj"))
    return (
        ours,
        theirs,
        [p for a, b in named for p in weights(getattr(ours, a), getattr(theirs, b))],
    )


def t5_mlp(perturb, gated=geglu_tanh):
    config = T5Config(d_model=D, d_ff=F, feed_forward_proj="gated-gelu", dropout_rate=0.0)
    theirs = perturb(T5DenseGatedActDense(config).eval(), seed=1)
    ours = GatedFeedForward(D, F, gated=gated)
    named = (("gate", "wi_0"), ("up", "wi_1"), ("down", "wo"))
    return (
        ours,
        theirs,
        [p for a, b in named for p in weights(getattr(ours, a), getattr(theirs, b))],
    )


def modernbert_mlp(perturb, gated=geglu):
    config = ModernBertConfig(hidden_size=D, intermediate_size=F, mlp_bias=False, mlp_dropout=0.0)
    theirs = perturb(ModernBertMLP(config).eval(), seed=1)
    ours = GatedFeedForward(D, F, gated=gated)
    pairs = [
        (ours.gate.weight, lambda: theirs.Wi.weight[:F]),
        (ours.up.weight, lambda: theirs.Wi.weight[F:]),
        (ours.down.weight, theirs.Wo.weight),
    ]
    return ours, theirs, pairs


MLPS = {
    "SwiGLU": (llama_mlp, "LlamaMLP"),
    "GeGLU, tanh": (t5_mlp, "T5DenseGatedActDense"),
    "GeGLU, exact": (modernbert_mlp, "ModernBertMLP"),
}


@pytest.mark.parametrize("name", MLPS)
def test_gated_feed_forward(name, perturb, record):
    build, oracle = MLPS[name]
    ours, theirs, pairs = build(perturb)
    output, gradients = compare(ours, theirs, stream(), pairs)
    record(name, oracle, "output", output)
    record(name, oracle, "gradients", gradients)
    assert max(output, gradients) < ATOL


@pytest.mark.parametrize("name", MLPS)
def test_wrong_gates_are_rejected(name, perturb):
    build, _ = MLPS[name]
    right = {"SwiGLU": swiglu, "GeGLU, tanh": geglu_tanh, "GeGLU, exact": geglu}[name]
    wrong = [gated for gated in (swiglu, geglu_tanh, geglu) if gated is not right]
    wrong += [
        lambda gate, up: right(up, gate),
        lambda gate, up: right(gate, torch.ones_like(up)),
        lambda gate, up: gate.sigmoid() * up,
    ]
    for gated in wrong:
        ours, theirs, pairs = build(perturb, gated)
        assert far(ours, theirs, stream(), pairs) > 1e-6


# --- norms of queries and keys -----------------------------------------------------------------


def qwen3(perturb, norms=True):
    config = Qwen3Config(
        hidden_size=D, num_attention_heads=H, num_key_value_heads=G, head_dim=P, rms_norm_eps=1e-4
    )
    config._attn_implementation = "eager"
    theirs = perturb(Qwen3Attention(config, layer_idx=0).eval(), seed=1)
    ours = MultiHeadAttention(
        D, H, n_kv_heads=G, d_head=P, bias=False,
        query_norm=RMSNorm(P, eps=1e-4) if norms else None,
        key_norm=RMSNorm(P, eps=1e-4) if norms else None,
    )  # fmt: skip
    named = [("query", "q_proj"), ("key", "k_proj"), ("value", "v_proj"), ("output", "o_proj")]
    named += [("query_norm", "q_norm"), ("key_norm", "k_norm")] if norms else []
    pairs = [p for a, b in named for p in weights(getattr(ours, a), getattr(theirs, b))]
    return ours, theirs, pairs


def test_qk_norm(perturb, record):
    ours, theirs, pairs = qwen3(perturb)
    assert len(pairs) == len(list(theirs.parameters()))
    errors = compare(lambda x: ours(x, causal=True), attend(theirs, P), stream(), pairs)
    record("attention with QK-norm", "Qwen3Attention", "output", errors[0])
    record("attention with QK-norm", "Qwen3Attention", "gradients", errors[1])
    assert max(errors) < ATOL


def test_missing_or_whole_width_qk_norm_is_rejected(perturb):
    """(Swapping the two norms' scales would change nothing: without rotation they commute.)"""
    x = stream()
    ours, theirs, pairs = qwen3(perturb, norms=False)
    assert far(lambda x: ours(x, causal=True), attend(theirs, P), x, pairs) > 1e-3
    ours, theirs, pairs = qwen3(perturb)
    ours.query.register_forward_hook(lambda m, i, y: RMSNorm(H * P, eps=1e-4)(y))
    ours.query_norm = torch.nn.Identity()
    pairs = [(m, o) for m, o in pairs if o is not theirs.q_norm.weight]
    assert far(lambda x: ours(x, causal=True), attend(theirs, P), x, pairs) > 1e-3


# --- blocks ------------------------------------------------------------------------------------


def interleaved(layer, d_head):
    """Parts of GPT-NeoX's fused projection: for each head query, key, value."""
    w = layer.query_key_value
    parts = w.weight.detach().view(-1, 3, d_head, w.in_features).transpose(0, 1).flatten(1, 2)
    biases = w.bias.detach().view(-1, 3, d_head).transpose(0, 1).flatten(1)
    return parts, biases


def gpt_neox(perturb, kind=ParallelBlock):
    d, h = 24, 4
    config = GPTNeoXConfig(
        hidden_size=d, num_attention_heads=h, intermediate_size=F, use_parallel_residual=True,
        hidden_dropout=0.0, attention_dropout=0.0, hidden_act="gelu", layer_norm_eps=1e-4,
    )  # fmt: skip
    config._attn_implementation = "eager"
    layer = perturb(GPTNeoXLayer(config, layer_idx=0).eval(), seed=1)
    ours = kind(
        MultiHeadAttention(d, h), FeedForward(d, F, activation=gelu_exact),
        LayerNorm(d, eps=1e-4), LayerNorm(d, eps=1e-4),
    )  # fmt: skip
    parts, biases = interleaved(layer.attention, d // h)
    pairs = []
    for i, part in enumerate((ours.attention.query, ours.attention.key, ours.attention.value)):
        pairs += [(part.weight, lambda i=i: parts[i]), (part.bias, lambda i=i: biases[i])]
    for mine, other in (
        (ours.attention.output, layer.attention.dense),
        (ours.ffn.up, layer.mlp.dense_h_to_4h),
        (ours.ffn.down, layer.mlp.dense_4h_to_h),
        (ours.attention_norm, layer.input_layernorm),
        (ours.ffn_norm, layer.post_attention_layernorm),
    ):
        pairs += weights(mine, other)

    def theirs(x):
        out = layer(x, attention_mask=hidden(), position_embeddings=idle(config.head_dim_idle))
        return out[0] if isinstance(out, tuple) else out

    config.head_dim_idle = layer.attention.rotary_ndims
    return ours, theirs, pairs, d


def gptj(perturb, kind=ParallelBlock):
    d, h = 24, 4
    config = GPTJConfig(
        n_embd=d, n_head=h, n_inner=F, rotary_dim=2, n_positions=16, resid_pdrop=0.0,
        attn_pdrop=0.0, layer_norm_epsilon=1e-4,
    )  # fmt: skip
    config._attn_implementation = "eager"
    layer = GPTJBlock(config, layer_idx=0).eval()
    with torch.no_grad():
        for p in layer.parameters():
            p += 0.3 * torch.randn(p.shape, generator=torch.Generator().manual_seed(1))
    table = layer.attn.embed_positions
    layer.attn.embed_positions = torch.cat(
        [torch.zeros_like(table[:, :1]), torch.ones_like(table[:, :1])], dim=-1
    )
    norms = [LayerNorm(d, eps=1e-4)] + ([] if kind is ParallelBlock else [LayerNorm(d, eps=1e-4)])
    ours = kind(
        MultiHeadAttention(d, h, bias=False), FeedForward(d, F, activation=gelu_tanh), *norms
    )
    pairs = []
    for mine, other in (
        (ours.attention.query, layer.attn.q_proj),
        (ours.attention.key, layer.attn.k_proj),
        (ours.attention.value, layer.attn.v_proj),
        (ours.attention.output, layer.attn.out_proj),
        (ours.ffn.up, layer.mlp.fc_in),
        (ours.ffn.down, layer.mlp.fc_out),
        (ours.attention_norm, layer.ln_1),
    ):
        pairs += weights(mine, other)

    def theirs(x):
        positions = torch.arange(x.shape[1])[None]
        return layer(x, attention_mask=hidden(), position_ids=positions)[0]

    return ours, theirs, pairs, d


def gemma2(perturb, kind=SandwichNormBlock):
    d, h, p = 24, 4, 6
    config = Gemma2Config(
        hidden_size=d, num_attention_heads=h, num_key_value_heads=2, head_dim=p,
        intermediate_size=F, query_pre_attn_scalar=p, attn_logit_softcapping=None,
        rms_norm_eps=1e-4, attention_dropout=0.0, num_hidden_layers=2,
    )  # fmt: skip
    config._attn_implementation = "eager"
    layer = perturb(Gemma2DecoderLayer(config, layer_idx=1).eval(), seed=1)
    norms = [RMSNorm(d, eps=1e-4) for _ in range(4 if kind is SandwichNormBlock else 2)]
    ours = kind(
        MultiHeadAttention(d, h, n_kv_heads=2, bias=False),
        GatedFeedForward(d, F, gated=geglu_tanh), *norms,
    )  # fmt: skip
    pairs = []
    for mine, other in (
        (ours.attention.query, layer.self_attn.q_proj),
        (ours.attention.key, layer.self_attn.k_proj),
        (ours.attention.value, layer.self_attn.v_proj),
        (ours.attention.output, layer.self_attn.o_proj),
        (ours.ffn.gate, layer.mlp.gate_proj),
        (ours.ffn.up, layer.mlp.up_proj),
        (ours.ffn.down, layer.mlp.down_proj),
    ):
        pairs += weights(mine, other)
    named = [("attention_norm", "input_layernorm"), ("ffn_norm", "pre_feedforward_layernorm")]
    if kind is SandwichNormBlock:
        named += [("attention_out_norm", "post_attention_layernorm")]
        named += [("ffn_out_norm", "post_feedforward_layernorm")]
    for mine, other in named:  # Gemma stores the scale less 1
        scale = getattr(layer, other).weight
        pairs.append((getattr(ours, mine).weight, lambda scale=scale: 1 + scale))

    def theirs(x):
        out = layer(x, position_embeddings=idle(p), attention_mask=hidden())
        return out[0] if isinstance(out, tuple) else out

    return ours, theirs, pairs, d


BLOCKS = {
    "parallel block, two norms": (gpt_neox, "GPTNeoXLayer"),
    "parallel block, one norm": (gptj, "GPTJBlock"),
    "sandwich block": (gemma2, "Gemma2DecoderLayer"),
}


@pytest.mark.parametrize("name", BLOCKS)
def test_block(name, perturb, record):
    build, oracle = BLOCKS[name]
    ours, theirs, pairs, d = build(perturb)
    output, gradients = compare(lambda x: ours(x, causal=True), theirs, stream(d), pairs)
    record(name, oracle, "output", output)
    record(name, oracle, "gradients", gradients)
    assert max(output, gradients) < ATOL


@pytest.mark.parametrize("name", BLOCKS)
def test_a_sequential_block_without_the_extra_norms_is_rejected(name, perturb):
    build, _ = BLOCKS[name]
    ours, theirs, pairs, d = build(perturb, PreNormBlock)
    assert far(lambda x: ours(x, causal=True), theirs, stream(d), pairs) > 1e-3
