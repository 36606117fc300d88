"""RoBERTa (Liu et al. 2019): BERT's network, pretrained longer on more text and without NSP.

What differs in the network: a byte-level vocabulary, one segment, and a position table whose first
two rows no token uses. What differs in training is the point: new masks every time a text is seen
(`data.masking`), whole runs of sentences as input, larger batches, ten times the text.
"""

from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from minillm.models.bert import CONFIG_KEYS, FIXED, Bert, BertConfig, encoder_keys, named
from minillm.models.bert_heads import SequenceClassifier
from minillm.models.bert_pretraining import BertForMaskedLM, Pooler
from minillm.models.hub_format import LABELS, HubFormat, Setting
from minillm.nn.ops import Ops
from minillm.nn.positions import LearnedPositions

FIRST_ROW = 2  # the padding id, 1, and one more


def _positions_read(rows: Any) -> int:
    if type(rows) is not int or rows <= FIRST_ROW:
        raise ValueError(f"max_position_embeddings={rows!r:.60} is not a whole number above 2")
    return rows - FIRST_ROW


_CONFIG = CONFIG_KEYS | {
    "max_position_embeddings": Setting("max_seq_len", _positions_read, lambda n: n + FIRST_ROW)
}
_FIXED = FIXED | {"model_type": "roberta"}
ROBERTA_FORMAT = HubFormat(
    keys={
        **encoder_keys("roberta.", "encoder."),
        **named({"lm_head.dense": "mlm.dense", "lm_head.layer_norm": "mlm.norm"}),
        "lm_head.bias": "mlm.bias",
    },
    tied={
        "lm_head.decoder.weight": "roberta.embeddings.word_embeddings.weight",
        "lm_head.decoder.bias": "lm_head.bias",
    },
    config=_CONFIG,
    fixed=_FIXED | {"architectures": ["RobertaForMaskedLM"]},
    extra={"pad_token_id": 1},
    obsolete=("embeddings.position_ids",),
)
ROBERTA_CLASSIFIER_FORMAT = HubFormat(
    keys={
        **encoder_keys("roberta.", "encoder."),
        **named({"classifier.dense": "pooler.dense", "classifier.out_proj": "output"}),
    },
    config=_CONFIG | {"id2label": LABELS},
    fixed=_FIXED | {"architectures": ["RobertaForSequenceClassification"]},
    extra={"pad_token_id": 1},
    obsolete=("embeddings.position_ids",),
)


class DroppedPooler(nn.Module):
    """BERT's pooler with dropout before it: the hidden layer of RoBERTa's classifier."""

    def __init__(self, pooler: Pooler, dropout: float | int) -> None:
        super().__init__()
        self.dense = pooler.dense
        self.dropout = nn.Dropout(dropout)

    def forward(self, hidden: Float[Tensor, "b t d"]) -> Float[Tensor, "b d"]:
        """Pool the vector of the first token."""
        return self.dense(self.dropout(hidden[:, 0])).tanh()


def roberta_encoder(*, ops: Ops | None = None, **overrides: Any) -> Bert:
    """RoBERTa-base's encoder; `overrides` change config fields."""
    numbers = {
        "vocab_size": 50265,
        "max_seq_len": 512,
        "d_model": 768,
        "n_layers": 12,
        "n_heads": 12,
        "n_segments": 1,
        "norm_eps": 1e-5,
        **overrides,
    }
    config = BertConfig(**numbers)
    positions = LearnedPositions(config.max_seq_len, config.d_model, offset=FIRST_ROW)
    return Bert(config, positions=positions, ops=ops)


def roberta(*, ops: Ops | None = None, **overrides: Any) -> BertForMaskedLM:
    """RoBERTa-base as it is pretrained: masked language modeling, nothing else."""
    return BertForMaskedLM(roberta_encoder(ops=ops, **overrides), hub_format=ROBERTA_FORMAT)


def roberta_classifier(*, ops: Ops | None = None, **overrides: Any) -> SequenceClassifier:
    """RoBERTa-base with an untrained head for `n_labels` classes (2 when left out)."""
    encoder = roberta_encoder(ops=ops, **overrides)
    c = encoder.config
    return SequenceClassifier(
        encoder,
        c.n_labels,
        pooler=DroppedPooler(Pooler(c.d_model, linear=encoder.ops.linear), c.dropout),
        hub_format=ROBERTA_CLASSIFIER_FORMAT,
    )
