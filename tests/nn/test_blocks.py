import pytest
import torch
from torch import nn

from minillm.nn import (
    FeedForward,
    LayerNorm,
    MultiHeadAttention,
    PostNormBlock,
    PreNormBlock,
    causal_mask,
    relu,
)

BLOCKS = pytest.mark.parametrize(
    ("kind", "norm_first"), [(PostNormBlock, False), (PreNormBlock, True)]
)


def pair(kind, norm_first, d=12, h=3, f=20):
    """Our block and PyTorch's encoder layer with the same random weights."""
    torch.manual_seed(0)
    theirs = nn.TransformerEncoderLayer(
        d, h, f, dropout=0.0, batch_first=True, norm_first=norm_first
    ).double()
    for p in theirs.parameters():
        nn.init.normal_(p, std=0.3)
    ours = kind(
        MultiHeadAttention(d, h), FeedForward(d, f, activation=relu), LayerNorm(d), LayerNorm(d)
    ).double()
    with torch.no_grad():
        for i, part in enumerate((ours.attention.query, ours.attention.key, ours.attention.value)):
            part.weight.copy_(theirs.self_attn.in_proj_weight[i * d : (i + 1) * d])
            part.bias.copy_(theirs.self_attn.in_proj_bias[i * d : (i + 1) * d])
    for mine, other in [
        (ours.attention.output, theirs.self_attn.out_proj),
        (ours.ffn.up, theirs.linear1),
        (ours.ffn.down, theirs.linear2),
        (ours.attention_norm, theirs.norm1),
        (ours.ffn_norm, theirs.norm2),
    ]:
        mine.load_state_dict(other.state_dict())
    return ours, theirs


@BLOCKS
def test_equals_torch_with_gradients(kind, norm_first):
    ours, theirs = pair(kind, norm_first)
    x = torch.randn(2, 7, 12, dtype=torch.float64, requires_grad=True)
    a = ours(x, causal=True)
    b = theirs(x, src_mask=~causal_mask(7))
    torch.testing.assert_close(a, b, atol=1e-11, rtol=0)
    probe = torch.randn_like(a)
    (ga,) = torch.autograd.grad((a * probe).sum(), x)
    (gb,) = torch.autograd.grad((b * probe).sum(), x)
    torch.testing.assert_close(ga, gb, atol=1e-10, rtol=0)


@BLOCKS
def test_the_other_order_and_swapped_norms_are_rejected(kind, norm_first):
    ours, theirs = pair(kind, norm_first)
    x = torch.randn(2, 7, 12, dtype=torch.float64)
    expected = theirs(x)
    other = PreNormBlock if kind is PostNormBlock else PostNormBlock
    wrong = other(ours.attention, ours.ffn, ours.attention_norm, ours.ffn_norm)
    assert (wrong(x) - expected).abs().max() > 1e-2
    wrong = kind(ours.attention, ours.ffn, ours.ffn_norm, ours.attention_norm)
    assert (wrong(x) - expected).abs().max() > 1e-2


@BLOCKS
def test_dropout_drops_both_updates(kind, norm_first):
    ours, _ = pair(kind, norm_first)
    x = torch.randn(2, 7, 12, dtype=torch.float64)
    block = kind(ours.attention, ours.ffn, ours.attention_norm, ours.ffn_norm, dropout=0.999999)
    out = block.train()(x)
    expected = x if norm_first else ours.ffn_norm(ours.attention_norm(x))
    torch.testing.assert_close(out, expected)
    assert torch.equal(block.eval()(x), ours(x))
