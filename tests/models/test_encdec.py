"""The encoder-decoder by itself; against transformers it is tested in tests/parity."""

import pytest
import torch

from minillm.generation import ContiguousCache
from minillm.models.encdec import (
    EncDecConfig,
    EncoderDecoder,
    shift_right,
    transformer,
    transformer_pre_norm,
    translation_loss,
)

SIZES = {"vocab_size": 31, "max_seq_len": 17, "d_model": 12, "n_layers": 2, "n_heads": 3,
         "d_ff": 20, "dropout": 0.0}  # fmt: skip


def build(kind="post", **changes):
    torch.manual_seed(0)
    numbers = SIZES | changes
    if kind == "pre":
        return transformer_pre_norm(**numbers).double().eval()
    return EncoderDecoder(EncDecConfig(**numbers)).double().eval()


def test_the_papers_sizes():
    """Table 3 counts 65 million for the base model; 37,000 shared tokens make it 63.1."""
    with torch.device("meta"):
        base = transformer()
        big = transformer("big")
    assert sum(p.numel() for p in base.parameters()) == 63_082_496
    assert 205e6 < sum(p.numel() for p in big.parameters()) < 215e6
    assert base.config.dropout == 0.1
    assert big.config.dropout == 0.3
    with pytest.raises(ValueError, match="unknown size 'huge'"):
        transformer("huge")


@pytest.mark.parametrize("kind", ["post", "pre"])
def test_causal_to_the_bit_and_blind_to_padding(kind):
    model = build(kind)
    source, target = torch.randint(31, (2, 7)), torch.randint(31, (2, 6))
    mask = torch.ones(2, 7, dtype=torch.bool)
    mask[1, 4:] = False
    with torch.no_grad():
        before = model(source, target, source_mask=mask)
        later, padded, seen = target.clone(), source.clone(), source.clone()
        later[:, 4] = (later[:, 4] + 1) % 31
        padded[1, 4:] = (padded[1, 4:] + 1) % 31
        seen[0, 6] = (seen[0, 6] + 1) % 31
        after = model(source, later, source_mask=mask)
        assert torch.equal(before[:, :4], after[:, :4])
        assert not torch.allclose(before[:, 4], after[:, 4])
        assert torch.equal(model(source, target, source_mask=mask), before)
        assert torch.equal(model(padded, target, source_mask=mask), before)
        changed = model(seen, target, source_mask=mask)
    assert (changed[0] != before[0]).any(-1).all(), "the source's end reaches every target token"
    assert torch.equal(changed[1], before[1])


@pytest.mark.parametrize("kind", ["post", "pre"])
def test_cached_equals_uncached(kind):
    model = build(kind)
    source, target = torch.randint(31, (2, 7)), torch.randint(31, (2, 6))
    with torch.no_grad():
        memory = model.remember(model.encode(source))
        cache = ContiguousCache.for_model(model, 2, 6)
        steps = [model.decode(target[:, i : i + 1], memory, cache=cache) for i in range(6)]
        whole = model(source, target)
        last = model.decode(target, memory, last_only=True)
    torch.testing.assert_close(torch.cat(steps, dim=1), whole, atol=1e-12, rtol=0)
    torch.testing.assert_close(last, whole[:, -1:], atol=1e-12, rtol=0)


def test_one_table_serves_three_times():
    model = build()
    names = [name for name, _ in model.named_parameters()]
    assert [n for n in names if "token" in n] == ["tokens.weight"]
    assert not any("output." in n and "attention" not in n for n in names)
    source, target = torch.tensor([[3, 4]]), torch.tensor([[5, 6]])
    model(source, target).logsumexp(-1).sum().backward()
    assert model.tokens.weight.grad.abs().sum(-1).gt(0).all(), "every row is an output, too"


def test_start_of_the_decoder():
    targets = torch.tensor([[5, 6, 2], [7, 2, -100]])
    assert shift_right(targets, 1, pad_id=9).tolist() == [[1, 5, 6], [1, 7, 2]]
    assert shift_right(torch.tensor([[7, 2, -100, -100]]), 1, 9).tolist() == [[1, 7, 2, 9]]
    assert targets[1, 2] == -100, "the argument is left alone"


def test_loss_counts_real_targets_only():
    model = build()
    source, mask = torch.randint(31, (2, 4)), torch.ones(2, 4, dtype=torch.bool)
    targets = torch.tensor([[5, 6, 2], [7, 2, -100]])
    batch = (source, mask, shift_right(targets, 1), targets)
    summed, n = translation_loss(model, batch, label_smoothing=0.1)
    assert n == 5
    log_p = model(source, shift_right(targets, 1)).log_softmax(-1)
    expected = 0.0
    for row, column in [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1)]:
        p = log_p[row, column]
        expected -= 0.9 * p[targets[row, column]] + 0.1 * p.mean()
    torch.testing.assert_close(summed, expected, atol=1e-12, rtol=0)


def test_initialization_gives_logits_of_order_one_and_vectors_of_variance_one():
    torch.manual_seed(0)
    model = transformer(vocab_size=999, d_model=64, n_layers=2, n_heads=4, d_ff=99, dropout=0.0)
    ids = torch.randint(999, (4, 20))
    assert 0.9 < (model.tokens(ids) * 8).std() < 1.1
    assert 0.5 < model(ids, ids).std() < 2


def test_dropout_acts_in_training_only():
    model = build(dropout=0.3)
    ids = torch.tensor([[3, 4, 5]])
    assert torch.equal(model(ids, ids), model(ids, ids))
    model.train()
    assert not torch.equal(model(ids, ids), model(ids, ids))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: EncDecConfig(9, 9, 10, 1, 3), "d_model 10 is not divisible"),
        (lambda: build()(torch.zeros(1, 18).long(), torch.zeros(1, 2).long()), "18 positions"),
        (lambda: build()(torch.zeros(1, 2).long(), torch.zeros(1, 0).long()), "length ≥ 1"),
        (
            lambda: build()(torch.tensor([[40]]), torch.tensor([[1]])),
            "must lie in 0 … 30",
        ),
        (
            lambda: build().encode(
                torch.zeros(1, 3).long(), source_mask=torch.ones(1, 3, dtype=torch.bool)[:, :2]
            ),
            "source_mask|does not match|s=3|shape",
        ),
    ],
)
def test_errors_name_the_value(call, message):
    with pytest.raises(Exception, match=message):
        call()
