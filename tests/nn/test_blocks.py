import pytest
import torch
import torch.nn.functional as F
from torch import nn

from minillm.nn import (
    DeepNormBlock,
    FeedForward,
    LayerNorm,
    MultiHeadAttention,
    ParallelBlock,
    PostNormBlock,
    PreNormBlock,
    SandwichNormBlock,
    causal_mask,
    deepnorm_factors,
    init_deepnorm,
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


def parts(d=12, h=3, f=20):
    """Attention, feed-forward and two norms with random weights."""
    torch.manual_seed(0)
    made = MultiHeadAttention(d, h), FeedForward(d, f), LayerNorm(d), LayerNorm(d)
    for part in made:
        for p in part.double().parameters():
            nn.init.normal_(p, std=0.3)
    return made


@pytest.mark.parametrize("alpha", [1, 1.7])
def test_deepnorm_block_is_its_definition_and_post_norm_at_alpha_1(alpha):
    attention, ffn, first, second = parts()
    block = DeepNormBlock(attention, ffn, first, second, alpha=alpha)
    x = torch.randn(2, 7, 12, dtype=torch.float64)
    middle = F.layer_norm(
        alpha * x + attention(x, causal=True), (12,), first.weight, first.bias, 1e-5
    )
    expected = F.layer_norm(alpha * middle + ffn(middle), (12,), second.weight, second.bias, 1e-5)
    torch.testing.assert_close(block(x, causal=True), expected, atol=1e-12, rtol=0)
    post = PostNormBlock(attention, ffn, first, second)(x, causal=True)
    assert torch.equal(block(x, causal=True), post) == (alpha == 1)


def wrong_alpha_on_the_update(block, x):
    x = block.attention_norm(x + block.alpha * block.attention(x))
    return block.ffn_norm(x + block.alpha * block.ffn(x))


def wrong_alpha_once(block, x):
    x = block.attention_norm(block.alpha * x + block.attention(x))
    return block.ffn_norm(x + block.ffn(x))


def wrong_pre_norm(block, x):
    x = block.alpha * x + block.attention(block.attention_norm(x))
    return block.alpha * x + block.ffn(block.ffn_norm(x))


@pytest.mark.parametrize("wrong", [wrong_alpha_on_the_update, wrong_alpha_once, wrong_pre_norm])
def test_wrong_deepnorm_is_rejected(wrong):
    block = DeepNormBlock(*parts(), alpha=1.7)
    x = torch.randn(2, 7, 12, dtype=torch.float64)
    assert (wrong(block, x) - block(x)).abs().max() > 1e-2


def test_deepnorm_factors_are_those_of_the_paper():
    """Wang et al. 2022, figure 2; its 200 layers (100 + 100) and 1,000 layers (500 + 500) too."""
    assert deepnorm_factors(decoder_layers=8)["decoder"] == (2.0, 64**-0.25)
    assert deepnorm_factors(encoder_layers=8)["encoder"] == (2.0, 64**-0.25)
    both = deepnorm_factors(encoder_layers=100, decoder_layers=100)
    assert both["encoder"] == pytest.approx((0.81 * 10**0.625, 0.87 * 10**-0.625))
    assert both["decoder"] == pytest.approx((300**0.25, 1200**-0.25))
    uneven = deepnorm_factors(encoder_layers=16, decoder_layers=2)
    assert uneven["encoder"] == pytest.approx((0.81 * 2 ** (17 / 16), 0.87 * 2 ** (-17 / 16)))
    assert uneven["decoder"] == pytest.approx((6**0.25, 24**-0.25))


def test_init_deepnorm_scales_value_output_and_ffn_but_not_query_and_key():
    torch.manual_seed(0)
    blocks = [
        DeepNormBlock(
            MultiHeadAttention(200, 4), FeedForward(200, 500), LayerNorm(200), LayerNorm(200),
            alpha=2,
        )
    ]  # fmt: skip
    init_deepnorm(blocks, beta=0.25)
    attention, ffn = blocks[0].attention, blocks[0].ffn
    for part, gain in (
        (attention.query, 1), (attention.key, 1), (attention.value, 0.25),
        (attention.output, 0.25), (ffn.up, 0.25), (ffn.down, 0.25),
    ):  # fmt: skip
        expected = gain * (2 / (part.in_features + part.out_features)) ** 0.5
        assert part.weight.std().item() == pytest.approx(expected, rel=0.03)
        assert (part.bias == 0).all()
    assert (blocks[0].attention_norm.weight == 1).all()


def test_init_deepnorm_is_the_same_for_the_same_seed():
    made = []
    for _ in range(2):
        torch.manual_seed(3)
        block = PostNormBlock(*(part.float() for part in parts()))
        init_deepnorm([block], 0.5)
        made.append(block)
    for a, b in zip(made[0].parameters(), made[1].parameters(), strict=True):
        assert torch.equal(a, b)


def test_sandwich_and_parallel_are_their_definitions():
    """Their oracles, Gemma 2, GPT-J and GPT-NeoX, are in tests/parity/test_layers.py."""
    attention, ffn, first, second = parts()
    third, fourth = parts()[2:]
    nn.init.normal_(third.weight)
    x = torch.randn(2, 7, 12, dtype=torch.float64)
    middle = x + third(attention(first(x), causal=True))
    sandwich = SandwichNormBlock(attention, ffn, first, second, third, fourth)
    expected = middle + fourth(ffn(second(middle)))
    torch.testing.assert_close(sandwich(x, causal=True), expected, atol=1e-12, rtol=0)
    one, two = ParallelBlock(attention, ffn, first), ParallelBlock(attention, ffn, first, second)
    attended = x + attention(first(x), causal=True)
    torch.testing.assert_close(one(x, causal=True), attended + ffn(first(x)), atol=1e-12, rtol=0)
    torch.testing.assert_close(two(x, causal=True), attended + ffn(second(x)), atol=1e-12, rtol=0)


def test_dropout_drops_both_updates_of_the_other_blocks():
    x = torch.randn(2, 7, 12, dtype=torch.float64)
    attention, ffn, first, second = parts()
    options = {"dropout": 0.999999}
    sandwich = SandwichNormBlock(attention, ffn, first, second, *parts()[2:], **options)
    assert torch.equal(sandwich(x), x)
    assert torch.equal(ParallelBlock(attention, ffn, first, **options)(x), x)
    deep = DeepNormBlock(attention, ffn, first, second, alpha=2, **options)
    torch.testing.assert_close(deep(x), second(2 * first(2 * x)))


def test_bad_numbers_are_named():
    with pytest.raises(ValueError, match="alpha must be a number above 0, got 0"):
        DeepNormBlock(*parts(), alpha=0)
    with pytest.raises(ValueError, match="0 encoder and 0 decoder layers"):
        deepnorm_factors()
    with pytest.raises(ValueError, match="-3 encoder"):
        deepnorm_factors(encoder_layers=-3, decoder_layers=4)
