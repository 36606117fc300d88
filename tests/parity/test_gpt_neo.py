"""Dense and banded layers in turn, as in GPT-3, against GPT-Neo in transformers, in float64."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from transformers import GPTNeoConfig, GPTNeoForCausalLM
from transformers.models.gpt_neo import modeling_gpt_neo

from minillm.models.gpt import gpt2
from minillm.nn import scaled_dot_product_attention
from minillm.nn.sparse import alternate, sliding_window

V, N, LAYERS, WINDOW = 53, 32, 4, 4
PARTS = {
    "ln_1": "attention_norm",
    "ln_2": "ffn_norm",
    "mlp.c_fc": "ffn.up",
    "mlp.c_proj": "ffn.down",
    "attn.attention.q_proj": "attention.query",
    "attn.attention.k_proj": "attention.key",
    "attn.attention.v_proj": "attention.value",
    "attn.attention.out_proj": "attention.output",
}


@pytest.fixture(autouse=True)
def _float64(monkeypatch):
    """Double precision everywhere: GPT-Neo casts queries and keys to what it calls float32."""
    torch.set_default_dtype(torch.float64)
    monkeypatch.setattr(modeling_gpt_neo.torch, "float32", torch.float64)
    yield
    monkeypatch.undo()
    torch.set_default_dtype(torch.float32)


def pair(perturb, window=WINDOW, dense_first=True):
    """GPT-Neo with noise on every weight, and a GPT of ours with the same weights."""
    config = GPTNeoConfig(
        vocab_size=V, max_position_embeddings=N, hidden_size=24, num_layers=LAYERS, num_heads=3,
        attention_types=[[["global", "local"], LAYERS // 2]], window_size=WINDOW,
        bos_token_id=None, eos_token_id=None,
    )  # fmt: skip
    config._attn_implementation = "eager"
    theirs = GPTNeoForCausalLM(config).double().eval()
    with torch.no_grad():
        perturb(theirs, seed=1)
    for name, buffer in theirs.named_buffers():
        assert buffer.dtype == torch.bool or "mask" in name, "noise went into a mask"
    # GPT-Neo does not divide by √p: scale=1
    ours = gpt2(vocab_size=V, max_seq_len=N, d_model=24, n_layers=LAYERS, n_heads=3).eval()
    ops = [partial(op, scale=1.0) for op in (scaled_dot_product_attention, sliding_window(window))]
    alternate(ours.blocks, *(ops if dense_first else ops[::-1]))
    with torch.no_grad():
        for mine, other in matched(ours, theirs):
            mine.copy_(other)
    for block in ours.blocks:
        for part in (block.attention.query, block.attention.key, block.attention.value):
            part.bias = None
    return ours, theirs


def matched(ours, theirs):
    """Pairs of parameters, ours and theirs; every one of theirs once."""
    pairs = [
        (ours.tokens.weight, theirs.transformer.wte.weight),
        (ours.positions.weight, theirs.transformer.wpe.weight),
        (ours.final_norm.weight, theirs.transformer.ln_f.weight),
        (ours.final_norm.bias, theirs.transformer.ln_f.bias),
    ]
    for mine, other in zip(ours.blocks, theirs.transformer.h, strict=True):
        for name, parameter in other.named_parameters():
            part, kind = name.rsplit(".", 1)
            pairs.append((mine.get_parameter(f"{PARTS[part]}.{kind}"), parameter))
    assert len(pairs) == sum(1 for _ in theirs.parameters())
    return pairs


def test_alternating_layers_match_gpt_neo_with_every_gradient(perturb, record):
    ours, theirs = pair(perturb)
    tokens = torch.randint(V, (3, 19), generator=torch.Generator().manual_seed(2))
    z, w = ours(tokens), theirs(tokens).logits
    losses = [F.cross_entropy(x[:, :-1].flatten(0, 1), tokens[:, 1:].flatten()) for x in (z, w)]
    for loss in losses:
        loss.backward()
    gradients = [(a.grad - b.grad).abs().max() for a, b in matched(ours, theirs)]
    assert min(b.grad.abs().max() for _, b in matched(ours, theirs)) > 1e-7
    for check, error in (
        ("logits, plain", (z - w).abs().max().item()),
        ("loss, plain", (losses[0] - losses[1]).abs().item()),
        ("gradients, plain", max(gradients).item()),
    ):
        record("gpt, dense and banded layers", "GPTNeoForCausalLM", check, error)
        assert error < 1e-9, check


@pytest.mark.parametrize(
    ("window", "dense_first"), [(3, True), (5, True), (4, False), (32, True)], ids=str
)
def test_another_window_or_order_is_rejected(perturb, window, dense_first):
    ours, theirs = pair(perturb, window, dense_first)
    tokens = torch.randint(V, (3, 19), generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        assert (ours(tokens) - theirs(tokens).logits).abs().max() > 1e-3
