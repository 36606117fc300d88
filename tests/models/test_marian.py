"""Marian's three differences from the 2017 model; the numbers are compared in tests/parity."""

import torch

from minillm.hub import load_hf, to_hf
from minillm.models.encdec import EncDecConfig, EncoderDecoder
from minillm.models.marian import MARIAN_FORMAT, marian
from minillm.nn import sinusoidal

SIZES = {"vocab_size": 31, "max_seq_len": 9, "d_model": 12, "n_layers": 2, "n_heads": 3,
         "d_ff": 20, "dropout": 0.0}  # fmt: skip


def test_opus_mt_size():
    with torch.device("meta"):
        model = EncoderDecoder(EncDecConfig(58_101, 512, 512, 6, 8, 2048), output_bias=True)
    assert sum(p.numel() for p in model.parameters()) == 58_101 * 512 + 6 * (3_152_384 + 4_204_032)


def test_what_differs_from_the_paper():
    model = marian(**SIZES).eval()
    plain = EncoderDecoder(EncDecConfig(**SIZES)).eval()
    assert torch.equal(model.positions.table[:, :6], sinusoidal(9, 12)[:, 0::2])
    assert torch.equal(model.positions.table[:, 6:], sinusoidal(9, 12)[:, 1::2])
    plain.load_state_dict({k: v for k, v in model.state_dict().items() if k != "output_bias"})
    ids = torch.randint(31, (2, 5))
    with torch.no_grad():
        before = model(ids, ids)
        assert not torch.allclose(before, plain(ids, ids), atol=1e-3)
        model.output_bias += torch.arange(31.0)
        torch.testing.assert_close(model(ids, ids), before + torch.arange(31.0))


def test_state_dict_goes_out_and_comes_back():
    model, other = marian(**SIZES), marian(**SIZES)
    model.output_bias.normal_()
    state = to_hf(model)
    assert set(MARIAN_FORMAT.tied) < state.keys()
    assert torch.equal(state["lm_head.weight"], state["model.shared.weight"])
    load_hf(other, state)
    for a, b in zip(model.state_dict().values(), other.state_dict().values(), strict=True):
        assert torch.equal(a, b)
