"""Mistakes with recurrent networks, attention and CRFs get a ValueError that shows a way out."""

import subprocess
import sys

SCRIPT = """
import torch
from torch import nn
from minillm.models.bilm import BiLM, BiLMConfig, LayerMix
from minillm.models.rnn import RNNLM, RNNConfig
from minillm.models.seq2seq import Seq2Seq, Seq2SeqConfig
from minillm.nn.crf import Chain, LinearChainCRF, viterbi
from minillm.nn.recurrent import GRUCell, LSTMCell, Recurrent, lengths_mask

x, yes = torch.randn(3, 7, 5), torch.ones(3, 7, dtype=torch.bool)
model = Recurrent(LSTMCell, 5, 4, 2)
weights = nn.LSTM(5, 4, 2).state_dict()
state = model(x)[1]
crf, tags, holes = LinearChainCRF(5), torch.zeros(3, 7, dtype=torch.long), yes.clone()
holes[1, 2] = False
lm, ids = RNNLM(RNNConfig(9, 4)), torch.ones(2, 3, dtype=torch.long)
cache = lm.new_cache()
lm(ids, cache=cache)
pair = Seq2Seq(Seq2SeqConfig(9, 8, 4))

CASES = [
    (lambda: model(x[..., :4]), "x must be (batch, length ≥ 1, 5), got (3, 7, 4)"),
    (lambda: model(x[:, :0]), "got (3, 0, 5)"),
    (lambda: model(x, mask=yes[:, :6]), "mask must be boolean (3, 7)"),
    (lambda: model(x, mask=yes.long()), "write `mask.bool()`"),
    (lambda: model(x, starts=yes[:2]), "starts must be boolean (3, 7)"),
    (lambda: model(x[:2], state), "give the one it returned"),
    (lambda: model(x, state[:1]), "this network needs 2 × 2 of (3, 4)"),
    (lambda: Recurrent(LSTMCell, 5, 4, 3).load_torch(weights), "weight_ih_l2 is missing"),
    (lambda: Recurrent(LSTMCell, 5, 4, 1).load_torch(weights), "have no place here"),
    (lambda: Recurrent(GRUCell, 5, 4, 2).load_torch(weights), "weight_ih_l0 is (16, 5), here (12"),
    (lambda: Recurrent(LSTMCell, 5, 4, 0), "n_layers must be a whole number, at least 1, got 0"),
    (lambda: Recurrent(LSTMCell, 5, 0), "d_state must be"),
    (lambda: Recurrent(LSTMCell, 5, 4, dropout=1.0), "dropout must be in [0, 1), got 1.0"),
    (lambda: lengths_mask([2, 5], 4), "must lie between 0 and 4"),
    (lambda: crf(x, tags[:, :6]), "tags (3, 6) must match the tokens (3, 7)"),
    (lambda: crf(x, tags - 1), "tags at real tokens go from -1"),
    (lambda: crf(x, tags + 5), "0 … 4, so mask what has no tag"),
    (lambda: crf(x, tags, holes), "pad on the right"),
    (lambda: crf.decode(x, yes.flip(1).cumsum(1) > 3), "a row of the mask is empty"),
    (lambda: crf.decode(x, yes.float()), "mask must be boolean (3, 7)"),
    (lambda: crf.decode(x[..., :4]), "emissions score 4 tags and the chain 5"),
    (lambda: viterbi(x[0], crf.chain), "emissions must be (b, t ≥ 1, k), got (7, 5)"),
    (lambda: lm(ids[0]), "tokens must have shape (batch ≥ 1, length ≥ 1), got (3,)"),
    (lambda: lm([[1, 2]]), "got list"),
    (lambda: lm(ids + 8), "token id 9 is outside the vocabulary of 9"),
    (lambda: lm(-ids), "token id -1"),
    (lambda: lm(ids, cache=object()), "made by model.new_cache()"),
    (lambda: lm(ids, attention_mask=yes[:2, :3], cache=cache), "must be (2, 6)"),
    (lambda: RNNConfig(9, 0), "d_model must be"),
    (lambda: RNNConfig(9, 4, dropout=-0.1), "dropout must be in [0, 1), got -0.1"),
    (lambda: Seq2SeqConfig(0, 8, 4), "source_vocab must be"),
    (lambda: pair.translate(ids, begin_id=8, end_id=1, max_new_tokens=2), "begin_id 8 is not in"),
    (lambda: pair.translate(ids, begin_id=0, end_id=1, max_new_tokens=0), "max_new_tokens must be"),
    (lambda: BiLMConfig(9, 4, 0), "n_layers must be"),
    (lambda: LayerMix(2)(BiLM(BiLMConfig(9, 4, 2)).layers(ids)), "3 layers, but this mix has"),
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
    assert done.stdout.strip() == "35 cases"
