"""BART by itself: its sizes, its positions, its start. Against transformers: tests/parity."""

import pytest
import torch

from minillm.models.bart import BART_SIZES, OffsetPositions, bart

SIZES = {"vocab_size": 31, "max_seq_len": 9, "d_model": 12, "n_layers": 2, "n_heads": 3,
         "d_ff": 20, "dropout": 0.0}  # fmt: skip


def test_published_sizes():
    counts = {"base": 139_420_416, "large": 406_291_456}
    assert set(counts) == set(BART_SIZES)
    for size, count in counts.items():
        with torch.device("meta"):
            assert sum(p.numel() for p in bart(size).parameters()) == count
    with pytest.raises(ValueError, match="unknown size 'huge'"):
        bart("huge")


def test_positions_begin_at_row_two():
    positions = OffsetPositions(9, 4)
    rows = positions(torch.arange(9)[None])[0]
    assert torch.equal(rows, positions.table.weight[2:])
    assert positions.table.weight.shape == (11, 4)


def test_two_rows_of_each_position_table_are_never_used():
    model = bart(**SIZES)
    ids = torch.randint(31, (2, 9))
    model(ids, ids).logsumexp(-1).sum().backward()
    for table in (model.positions, model.decoder_positions):
        used = table.table.weight.grad.abs().sum(-1) > 0
        assert used.tolist() == [False, False, *[True] * 9]


def test_bias_on_the_logits_is_a_buffer():
    model = bart(**SIZES)
    assert "output_bias" in dict(model.named_buffers())
    ids = torch.randint(31, (1, 4))
    before = model(ids, ids)
    model.output_bias += torch.arange(31)
    torch.testing.assert_close(model(ids, ids) - before, torch.arange(31.0).expand(1, 4, 31))


def test_starts_small_and_without_biases():
    torch.manual_seed(0)
    model = bart(**{**SIZES, "d_model": 96, "vocab_size": 500})
    for name, p in model.named_parameters():
        if name.endswith("norm.weight"):
            assert (p == 1).all()
        elif p.ndim == 2:
            assert 0.018 < p.std() < 0.022, name
        else:
            assert not p.any(), name
