"""BERT put to work (Devlin et al. 2019, 4): classes of texts, tags of tokens, sentence vectors.

Every head takes an encoder ready-made, pretrained or not, and trains it further along with itself.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from minillm.data.parallel import pad_right
from minillm.models.bert import (
    BERT_FORMAT,
    CONFIG_KEYS,
    FIXED,
    Bert,
    bert,
    encoder_keys,
    init_bert,
    named,
)
from minillm.models.bert_pretraining import Pooler
from minillm.models.hub_format import LABELS, HubFormat
from minillm.nn.linear import Linear, check_sizes
from minillm.nn.losses import cross_entropy
from minillm.nn.ops import Ops


def _format(architecture: str, **layers: str) -> HubFormat:
    return HubFormat(
        keys={**encoder_keys("bert.", "encoder."), **named(layers)},
        config=CONFIG_KEYS | {"id2label": LABELS},
        fixed=FIXED | {"architectures": [architecture]},
        obsolete=("embeddings.position_ids",),
    )


CLASSIFIER_FORMAT = _format(
    "BertForSequenceClassification", **{"bert.pooler.dense": "pooler.dense", "classifier": "output"}
)
TAGGER_FORMAT = _format("BertForTokenClassification", classifier="output")


class SequenceClassifier(nn.Module):
    """logits = W pool(h) + c: one class for a text, or for a pair of texts.

    `pooler` is the one that was pretrained along with the encoder, or a new one when left out.
    """

    def __init__(
        self,
        encoder: Bert,
        n_classes: int,
        *,
        pooler: nn.Module | None = None,
        hub_format: HubFormat = CLASSIFIER_FORMAT,
    ) -> None:
        super().__init__()
        c, linear = replace(encoder.config, n_labels=n_classes), encoder.ops.linear
        self.config, self.hub_format, self.encoder = c, hub_format, encoder
        self.pooler = Pooler(c.d_model, linear=linear) if pooler is None else pooler
        self.dropout = nn.Dropout(c.dropout) if c.dropout > 0 else nn.Identity()
        self.output = Linear(c.d_model, n_classes, op=linear)
        init_bert(self.output)

    def forward(self, tokens: Int[Tensor, "b t"], **options: Any) -> Float[Tensor, "b c"]:
        """Scores of the classes; `options` go to the encoder (segments, attention_mask, …)."""
        return self.output(self.dropout(self.pooler(self.encoder(tokens, **options))))


class TokenClassifier(nn.Module):
    """logits = W h + c for every token: names, parts of speech, or the ends of an answer."""

    def __init__(self, encoder: Bert, n_classes: int) -> None:
        super().__init__()
        c = replace(encoder.config, n_labels=n_classes)
        self.config, self.hub_format, self.encoder = c, TAGGER_FORMAT, encoder
        self.dropout = nn.Dropout(c.dropout) if c.dropout > 0 else nn.Identity()
        self.output = Linear(c.d_model, n_classes, op=encoder.ops.linear)
        init_bert(self.output)

    def forward(self, tokens: Int[Tensor, "b t"], **options: Any) -> Float[Tensor, "b t c"]:
        """Scores of the classes for each token; `options` go to the encoder."""
        return self.output(self.dropout(self.encoder(tokens, **options)))


def bert_classifier(*, ops: Ops | None = None, **overrides: Any) -> SequenceClassifier:
    """BERT-base with an untrained head for `n_labels` classes (2 when left out)."""
    encoder = bert(ops=ops, **overrides)
    return SequenceClassifier(encoder, encoder.config.n_labels)


def bert_tagger(*, ops: Ops | None = None, **overrides: Any) -> TokenClassifier:
    """BERT-base with an untrained head for `n_labels` classes of tokens (2 when left out)."""
    encoder = bert(ops=ops, **overrides)
    return TokenClassifier(encoder, encoder.config.n_labels)


def classification_loss(
    model: nn.Module,
    batch: tuple[dict[str, Tensor], Tensor],
    *,
    cross_entropy: Callable[..., Tensor] = cross_entropy,
) -> tuple[Float[Tensor, ""], int]:
    """Summed cross-entropy of the labels that count (≠ −100), and how many they are.

    `batch` is (what the model takes, labels), one label a text or one a token.
    """
    inputs, labels = batch
    loss = cross_entropy(model(**inputs), labels, reduction="sum")
    return loss, int((labels != -100).sum())


def mean_pool(
    hidden: Float[Tensor, "b t d"], attention_mask: Bool[Tensor, "b t"] | None = None
) -> Float[Tensor, "b d"]:
    """Mean of the vectors of real tokens, `[CLS]` and `[SEP]` included (Reimers, Gurevych 2019)."""
    if attention_mask is None:
        return hidden.mean(1)
    if not bool(attention_mask.any(1).all()):
        raise ValueError("a text of padding alone has no mean: every row needs one real token")
    weight = attention_mask[..., None].to(hidden.dtype)
    return (hidden * weight).sum(1) / weight.sum(1)


class SentenceEncoder(nn.Module):
    """One vector of length 1 per text: the mean of its tokens' vectors (Reimers, Gurevych 2019).

    The cosine of two texts is then the product of their vectors. With `minilm_l6()` as encoder it
    is all-MiniLM-L6-v2.
    """

    def __init__(self, encoder: Bert) -> None:
        super().__init__()
        self.config, self.encoder = encoder.config, encoder
        self.hub_format = HubFormat(
            keys=encoder_keys("", "encoder."),
            config=CONFIG_KEYS,
            fixed=BERT_FORMAT.fixed,
            obsolete=BERT_FORMAT.obsolete,
        )

    def forward(
        self,
        tokens: Int[Tensor, "b t"],
        *,
        attention_mask: Bool[Tensor, "b t"] | None = None,
        **options: Any,
    ) -> Float[Tensor, "b d"]:
        """Vectors of the texts; `options` go to the encoder."""
        hidden = self.encoder(tokens, attention_mask=attention_mask, **options)
        pooled = mean_pool(hidden, attention_mask)
        return pooled / pooled.norm(dim=-1, keepdim=True).clamp(min=1e-12)


@torch.no_grad()
def embed(
    model: SentenceEncoder,
    encode: Callable[[str], Sequence[int]],
    texts: Sequence[str],
    *,
    batch_size: int = 32,
    max_len: int = 256,
    pad_id: int = 0,
) -> Float[Tensor, "n d"]:
    """Vectors of `texts`, in order; texts of like length share a batch, so little is padding.

    `encode` gives the ids of one text with its `[CLS]` and `[SEP]`; longer texts than `max_len` are
    cut before the last id.
    """
    check_sizes(batch_size=batch_size, max_len=max_len)
    ids = [list(encode(text)) for text in texts]
    ids = [row if len(row) <= max_len else [*row[: max_len - 1], row[-1]] for row in ids]
    order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
    device = next(model.parameters()).device
    out = torch.empty(len(ids), model.config.d_model, device=device)
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        tokens, mask = pad_right([ids[i] for i in rows], pad_id)
        out[rows] = model(tokens.to(device), attention_mask=mask.to(device)).to(out.dtype)
    return out
