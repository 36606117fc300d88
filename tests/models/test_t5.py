"""T5 by itself: its sizes, its start, its presets. Against transformers: tests/parity."""

import math

import pytest
import torch

from minillm.models.t5 import T5_1_1_SIZES, T5_SIZES, T5Config, t5, t5_1_1
from minillm.nn import Ops, scaled_dot_product_attention

SIZES = {"vocab_size": 31, "max_seq_len": 300, "d_model": 12, "n_layers": 2, "n_heads": 3,
         "d_head": 5, "d_ff": 20, "dropout": 0.0}  # fmt: skip
# transformers' T5ForConditionalGeneration of the published configurations has as many
PUBLISHED = {
    "small": 60_506_624, "base": 222_903_552, "large": 737_668_096, "3b": 2_851_598_336,
    "11b": 11_307_321_344,
}  # fmt: skip
PUBLISHED_1_1 = {"small": 76_961_152, "base": 247_577_856, "large": 783_150_080,
                 "xl": 2_849_757_184, "xxl": 11_135_332_352}  # fmt: skip


@pytest.mark.parametrize(("preset", "counts"), [(t5, PUBLISHED), (t5_1_1, PUBLISHED_1_1)])
def test_published_sizes(preset, counts):
    assert set(counts) == set(T5_SIZES if preset is t5 else T5_1_1_SIZES)
    for size, count in counts.items():
        with torch.device("meta"):
            assert sum(p.numel() for p in preset(size).parameters()) == count
    with pytest.raises(ValueError, match="unknown size 'huge'"):
        preset("huge")


def test_no_bias_vector_and_two_tables_of_buckets():
    names = [name for name, _ in t5(**SIZES).named_parameters()]
    assert [n for n in names if "bias" in n] == ["encoder_bias.weight", "decoder_bias.weight"]


def test_first_scores_are_those_of_ordinary_scaled_attention():
    """Queries start 1/√p smaller: scores of unit vectors have variance about 1, unscaled."""
    torch.manual_seed(0)
    seen = []

    def spy(q, k, v, mask=None, **options):
        assert options["scale"] == 1.0
        seen.append((q @ k.mT).std().item())
        return scaled_dot_product_attention(q, k, v, mask, **options)

    big = {"vocab_size": 999, "d_model": 256, "n_layers": 1, "n_heads": 4, "d_head": 64}
    model = t5(**big, d_ff=64, dropout=0.0, ops=Ops(attention=spy)).eval()
    with torch.no_grad():
        logits = model(torch.randint(999, (2, 40)), torch.randint(999, (2, 30)))
    assert len(seen) == 3
    assert all(0.7 < spread < 1.4 for spread in seen)
    assert 0.7 < logits.std() < 1.4, "tied, and so multiplied by 1/√d"
    spread = model.encoder[0].attention.query.weight.std().item()
    assert math.isclose(spread, (256 * 64) ** -0.5, rel_tol=0.05)


def test_text_longer_than_any_distance_with_a_bucket():
    model = t5(**SIZES).eval()
    with torch.no_grad():
        assert model.encode(torch.zeros(1, 300).long()).shape == (1, 300, 12)


def test_config_checks_its_numbers():
    with pytest.raises(Exception, match="n_heads"):
        T5Config(12, 2, 0, 5, 20)
    with pytest.raises(Exception, match="dropout"):
        T5Config(12, 2, 3, 5, 20, dropout=1.5)
    assert T5Config(12, 2, 3, 5, 20).n_kv_heads == 3
