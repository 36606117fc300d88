"""Mistakes get a ValueError that names the value, also where nothing checks shapes at run time."""

import subprocess
import sys

SCRIPT = """
import torch
from minillm.models.gpt import GPTConfig, gpt2, gpt_tiny
from minillm.nn import *
from minillm.nn.ops import TORCH_OPS

x = torch.randn(2, 4, 12)
ids = torch.tensor([[1, 2, 3]])
model = gpt_tiny(10, max_seq_len=5, d_model=12, n_heads=3, n_layers=1)
layer = MultiHeadAttention(12, 3)
nan, ids4, q = float("nan"), torch.zeros(2, 4).long(), torch.randn(1, 2, 4, 3)
ones = torch.ones(1, 3, dtype=torch.long)

CASES = [
    (lambda: scaled_dot_product_attention(x, x, x), "q (2, 4, 12)"),
    (lambda: TORCH_OPS.attention(x, x, x), "q (2, 4, 12)"),
    (lambda: alibi_bias(distances(3), torch.ones(2, 2)), "slopes must be one number a head"),
    (lambda: Rotary(rotary_frequencies(2))(q, ids), "(batch or 1, 4), got torch.int64 (1, 3)"),
    (lambda: Rotary(rotary_frequencies(2))(q, ids4 * 1.0), "positions must be whole numbers"),
    (lambda: Rotary(torch.ones(2, 2)), "frequencies must be finite numbers in one axis"),
    (lambda: layer(x[0]), "(batch, length, 12), got (4, 12)"),
    (lambda: layer(x[:, :, :11]), "got (2, 4, 11)"),
    (lambda: layer(x, x[:, :, :5]), "memory"),
    (lambda: layer(x, mask=torch.ones(4, 4)), "mask must be boolean"),
    (lambda: layer(x, mask=torch.ones(4, 3, dtype=torch.bool)), "mask (4, 3)"),
    (lambda: padding_mask(ones), "write `mask.bool()`"),
    (lambda: cross_entropy(x, ids), "logits (2, 4, 12) need targets of shape (2, 4), got (1, 3)"),
    (lambda: cross_entropy(x, torch.zeros(2, 4).long(), reduction="avg"), "'avg'"),
    (lambda: TORCH_OPS.cross_entropy(x, ids), "need targets of shape (2, 4)"),
    (lambda: model(ids[0]), "write `tokens[None]`"),
    (lambda: model(ids[:, :0]), "(1, 0)"),
    (lambda: model(ids.float()), "token ids must be int64 or int32, got torch.float32"),
    (lambda: model(ids + 7), "token ids must lie in 0 … 9, got 8 … 10"),
    (lambda: model(-ids), "got -3 … -1"),
    (lambda: model(torch.ones(1, 6).long()), "6 positions exceed max_seq_len 5"),
    (lambda: model(ids, positions=ids + 3), "positions must lie in 0 … 4, got 4 … 6"),
    (lambda: model(ids, positions=ids[:, :2]), "positions (1, 2)"),
    (lambda: model(ids, attention_mask=ones), "write `mask.bool()`"),
    (lambda: model(ids, attention_mask=ones[:, :2].bool()), "(1, 3)"),
    (lambda: MultiHeadAttention(10, 3), "d_model 10"),
    (lambda: MultiHeadAttention(12, 0), "n_heads must be a whole number, at least 1, got 0"),
    (lambda: GPTConfig(10, 5, 12, 1, 5), "d_model 12 is not divisible by n_heads 5"),
    (lambda: GPTConfig(10, 0, 12, 1, 3), "max_seq_len must be a whole number, at least 1, got 0"),
    (lambda: GPTConfig(10, 5, 12.0, 1, 3), "d_model must be a whole number"),
    (lambda: GPTConfig(10, 5, 12, "two", 3), "n_layers must be a whole number"),
    (lambda: GPTConfig(10, 5, 12, 1, 3, dropout=1.5), "dropout must be in [0, 1), got 1.5"),
    (lambda: GPTConfig(True, 5, 12, 1, 3), "vocab_size must be a whole number"),
    (lambda: GPTConfig(10, 5, 12, 1, 3, d_ff=0), "d_ff must be a whole number, at least 1, got 0"),
    (lambda: GPTConfig(10, 5, 12, 1, 3, d_ff=-4), "got -4"),
    (lambda: GPTConfig(10, 5, 12, 1, 3, d_ff=3.5), "got 3.5"),
    (lambda: GPTConfig(10, 5, 12, 1, 3, norm_eps=-1.0), "norm_eps must be in [0, 1)"),
    (lambda: GPTConfig(10, 5, 12, 1, 3, norm_eps=nan), "norm_eps must be in [0, 1)"),
    (lambda: GPTConfig(10, 5, 12, 1, 3, dropout="a"), "got 'a'"),
    (lambda: MultiHeadAttention(12, 3, dropout=nan), "dropout must be in [0, 1), got nan"),
    (lambda: MultiHeadAttention(12, 3, dropout=-1), "got -1"),
    (lambda: MultiHeadAttention(12, 3, d_head=0), "d_head must be a whole number"),
    (lambda: MultiHeadAttention(12, 3, n_kv_heads=-3), "n_kv_heads must be a whole number"),
    (lambda: FeedForward(12, 3, dropout=2.0), "dropout must be in [0, 1), got 2.0"),
    (lambda: FeedForward(12, -3), "d_ff must be a whole number, at least 1, got -3"),
    (lambda: Linear(12, 0), "d_out must be"),
    (lambda: LayerNorm(-1), "d_model must be"),
    (lambda: LearnedPositions(-1, 4), "max_seq_len must be"),
    (lambda: sinusoidal(2.5, 4), "n must be a whole number, at least 1, got 2.5"),
    (lambda: sinusoidal(2, 4, base=0), "base must be a number above 0, got 0"),
    (lambda: cross_entropy(x, ids4.float()), "targets must be integer ids, got torch.float32"),
    (lambda: TORCH_OPS.cross_entropy(x, ids4 > 0), "targets must be integer ids, got torch.bool"),
    (lambda: cross_entropy(x, ids4, label_smoothing=2), "label_smoothing must be in [0, 1], got 2"),
    (lambda: cross_entropy(x, ids4, label_smoothing=-0.1), "got -0.1"),
    (lambda: TORCH_OPS.cross_entropy(x, ids4, label_smoothing=nan), "got nan"),
    (lambda: scaled_dot_product_attention(q, q, q.double()), "torch.float32, torch.float64"),
    (lambda: TORCH_OPS.attention(q.int(), q.int(), q.int()), "one floating-point type"),
    (lambda: attention_weights(q, q[:, :0]), "cannot share 0"),
    (lambda: attention_weights(q, q, [[True] * 4] * 4), "mask is a list"),
    (lambda: scaled_dot_product_attention(q, q[..., :2], q[..., :2]), "k (1, 2, 4, 2)"),
    (lambda: attention_weights(q, q, torch.ones(2, 4).bool()), "mask (2, 4) does not broadcast"),
    (lambda: model([[1, 2]]), "tokens is [[1, 2]]; write `torch.tensor(tokens)`"),
    (lambda: model(ids[:0]), "(0, 3)"),
    (lambda: model(ids, positions=ids.expand(2, 3)), "positions (2, 3) must match tokens (1, 3)"),
    (lambda: gpt2("huge"), "unknown size 'huge'; choose from small, medium, large, xl"),
]
for number, (call, message) in enumerate(CASES):
    try:
        call()
    except ValueError as error:
        assert message in str(error), f"case {number}: {message!r} is not in {error}"
    else:
        raise AssertionError(f"case {number}: no error, expected {message!r}")
print(len(CASES), "cases")
"""


def test_mistakes_are_named():
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "65 cases"
