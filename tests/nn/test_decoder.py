"""Decoder blocks against torch's nn.TransformerDecoderLayer, gradients included."""

import pytest
import torch
from torch import nn

from minillm.generation import ContiguousCache
from minillm.nn import (
    FeedForward,
    LayerNorm,
    MultiHeadAttention,
    PostNormDecoderBlock,
    PreNormDecoderBlock,
    causal_mask,
    padding_mask,
    relu,
)

D, H, F = 12, 3, 20
BLOCKS = {"post": PostNormDecoderBlock, "pre": PreNormDecoderBlock}


def ours(kind, seed=0, dropout=0.0):
    norms = (LayerNorm(D), LayerNorm(D), LayerNorm(D))
    ffn = FeedForward(D, F, activation=relu)
    attention, cross = MultiHeadAttention(D, H), MultiHeadAttention(D, H)
    block = BLOCKS[kind](attention, cross, ffn, *norms, dropout=dropout).double()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in block.parameters():
            p += 0.3 * torch.randn(p.shape, generator=generator, dtype=torch.float64)
    return block


def pairs(block, theirs):
    """(ours, theirs) of every tensor; torch keeps the three projections of attention in one."""
    for attention, reference in (
        (block.attention, theirs.self_attn),
        (block.cross_attention, theirs.multihead_attn),
    ):
        parts = (attention.query, attention.key, attention.value)
        for i, part in enumerate(parts):
            rows = slice(i * D, (i + 1) * D)
            yield part.weight, reference.in_proj_weight, rows
            yield part.bias, reference.in_proj_bias, rows
        yield attention.output.weight, reference.out_proj.weight, slice(None)
        yield attention.output.bias, reference.out_proj.bias, slice(None)
    for mine, other in (
        (block.attention_norm, theirs.norm1),
        (block.cross_norm, theirs.norm2),
        (block.ffn_norm, theirs.norm3),
        (block.ffn.up, theirs.linear1),
        (block.ffn.down, theirs.linear2),
    ):
        yield mine.weight, other.weight, slice(None)
        yield mine.bias, other.bias, slice(None)


def reference(kind, block):
    theirs = nn.TransformerDecoderLayer(
        D, H, F, dropout=0.0, batch_first=True, norm_first=kind == "pre", dtype=torch.float64
    )
    with torch.no_grad():
        for mine, other, rows in pairs(block, theirs):
            other[rows] = mine
    return theirs


def inputs(seed=1):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(2, 5, D, generator=generator, dtype=torch.float64, requires_grad=True)
    memory = torch.randn(2, 7, D, generator=generator, dtype=torch.float64, requires_grad=True)
    mask = torch.ones(2, 7, dtype=torch.bool)
    mask[1, 4:] = False
    return x, memory, mask


def difference(kind, block, theirs, remembered=False):
    """Largest error of the output and of every gradient."""
    x, memory, mask = inputs()
    given = block.cross_attention.remember(memory) if remembered else memory
    out = block(x, given, memory_mask=padding_mask(mask), causal=True)
    expected = theirs(x, memory, tgt_mask=~causal_mask(5), memory_key_padding_mask=~mask)
    probe = torch.randn(out.shape, generator=torch.Generator().manual_seed(2)).double()
    block.zero_grad(), theirs.zero_grad()
    mine = torch.autograd.grad((out * probe).sum(), (x, memory), retain_graph=True)
    other = torch.autograd.grad((expected * probe).sum(), (x, memory), retain_graph=True)
    (out * probe).sum().backward()
    (expected * probe).sum().backward()
    errors = [(out - expected).abs().max()]
    errors += [(a - b).abs().max() for a, b in zip(mine, other, strict=True)]
    errors += [(a.grad - b.grad[rows]).abs().max() for a, b, rows in pairs(block, theirs)]
    return max(errors).item()


@pytest.mark.parametrize("kind", BLOCKS)
@pytest.mark.parametrize("remembered", [False, True], ids=["memory", "keys and values"])
def test_equals_torch_with_every_gradient(kind, remembered):
    block = ours(kind)
    assert difference(kind, block, reference(kind, block), remembered) < 1e-11


WRONG = {
    "memory_reversed_under_its_mask": lambda b: setattr(
        b.cross_attention, "remember", lambda m, r=b.cross_attention.remember: r(m.flip(1))
    ),
    "norms_swapped": lambda b: b._modules.update(
        cross_norm=b.attention_norm, attention_norm=b.cross_norm
    ),
    "attentions_swapped": lambda b: b._modules.update(
        cross_attention=b.attention, attention=b.cross_attention
    ),
    "no_feed_forward_norm": lambda b: b._modules.update(ffn_norm=nn.Identity()),
}


@pytest.mark.parametrize("kind", BLOCKS)
@pytest.mark.parametrize("wrong", [*WRONG, "other_norm_place"])
def test_wrong_version_is_rejected(kind, wrong):
    right = ours(kind)
    theirs = reference(kind, right)
    block = right
    if wrong == "other_norm_place":
        block = ours("pre" if kind == "post" else "post")
        block.load_state_dict(right.state_dict())
    else:
        WRONG[wrong](block)
    x, memory, mask = inputs()
    out = block(x, memory, memory_mask=padding_mask(mask), causal=True)
    expected = theirs(x, memory, tgt_mask=~causal_mask(5), memory_key_padding_mask=~mask)
    assert (out - expected).abs().max() > 1e-3, f"{wrong} goes unnoticed"


@pytest.mark.parametrize("kind", BLOCKS)
def test_step_by_step_equals_all_at_once(kind):
    block = ours(kind)
    x, memory, mask = inputs()
    with torch.no_grad():
        whole = block(x, memory, memory_mask=padding_mask(mask), causal=True)
        pair = block.cross_attention.remember(memory)
        cache = ContiguousCache(1, 2, H, 5, D // H, dtype=torch.float64)
        steps = [
            block(x[:, i : i + 1], pair, memory_mask=padding_mask(mask), causal=True,
                  cache=cache[0])
            for i in range(5)
        ]  # fmt: skip
    torch.testing.assert_close(torch.cat(steps, dim=1), whole, atol=1e-12, rtol=0)


@pytest.mark.parametrize("kind", BLOCKS)
def test_is_blind_to_padding_and_to_the_future(kind):
    block = ours(kind)
    x, memory, mask = inputs()
    with torch.no_grad():
        before = block(x, memory, memory_mask=padding_mask(mask), causal=True)
        changed, later = memory.clone(), x.clone()
        changed[1, 4:] += 1e3
        later[:, 3:] += 10
        assert torch.equal(block(x, changed, memory_mask=padding_mask(mask), causal=True), before)
        after = block(later, memory, memory_mask=padding_mask(mask), causal=True)
    assert torch.equal(after[:, :3], before[:, :3])
    assert not torch.allclose(after[:, 3:], before[:, 3:])


@pytest.mark.parametrize("kind", BLOCKS)
def test_dropout_acts_in_training_only(kind):
    block = ours(kind, dropout=0.5)
    x, memory, _ = inputs()
    assert not torch.equal(block(x, memory, causal=True), block(x, memory, causal=True))
    block.eval()
    assert torch.equal(block(x, memory, causal=True), block(x, memory, causal=True))
