"""BERT's pretraining (Devlin et al. 2019, 3.1): two heads, one loss.

One head names the masked tokens, the other says whether the second sentence followed the first.
RoBERTa keeps the first alone: `BertForMaskedLM`.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from minillm.models.bert import CONFIG_KEYS, FIXED, Bert, bert, encoder_keys, init_bert, named
from minillm.models.hub_format import HubFormat
from minillm.nn.linear import Linear, linear
from minillm.nn.losses import cross_entropy
from minillm.nn.ops import Ops


class Pooler(nn.Module):
    """tanh(W h₀ + b): one vector for the whole input, from the first token, `[CLS]`."""

    def __init__(self, d_model: int, *, linear: Callable[..., Tensor] = linear):
        super().__init__()
        self.dense = Linear(d_model, d_model, op=linear)
        init_bert(self)

    def forward(self, hidden: Float[Tensor, "b t d"]) -> Float[Tensor, "b d"]:
        """Pool the vectors of an encoder."""
        return torch.tanh(self.dense(hidden[:, 0]))


class MaskedLMHead(nn.Module):
    """logits = norm(gelu(W h + b)) Eᵀ + c, with E the encoder's own token table."""

    def __init__(self, encoder: Bert) -> None:
        super().__init__()
        d_model, self.linear = encoder.config.d_model, encoder.ops.linear
        self.dense = Linear(d_model, d_model, op=self.linear)
        self.activation, self.norm = encoder.activation, encoder.norm()
        self.bias = nn.Parameter(torch.zeros(encoder.config.vocab_size))
        init_bert(self)

    def forward(
        self, hidden: Float[Tensor, "*n d"], table: Float[Tensor, "v d"]
    ) -> Float[Tensor, "*n v"]:
        """Scores of all tokens of `table` for each vector."""
        return self.linear(self.norm(self.activation(self.dense(hidden))), table, self.bias)


_MLM = named(
    {
        "cls.predictions.transform.dense": "mlm.dense",
        "cls.predictions.transform.LayerNorm": "mlm.norm",
    }
) | {"cls.predictions.bias": "mlm.bias"}
_TIED = {
    "cls.predictions.decoder.weight": "bert.embeddings.word_embeddings.weight",
    "cls.predictions.decoder.bias": "cls.predictions.bias",
}
MASKED_LM_FORMAT = HubFormat(
    keys={**encoder_keys("bert.", "encoder."), **_MLM},
    tied=_TIED,
    config=CONFIG_KEYS,
    fixed=FIXED | {"architectures": ["BertForMaskedLM"]},
    obsolete=("embeddings.position_ids",),
)
PRETRAINING_FORMAT = HubFormat(
    keys={
        **encoder_keys("bert.", "encoder."),
        **named({"bert.pooler.dense": "pooler.dense", "cls.seq_relationship": "nsp"}),
        **_MLM,
    },
    tied=_TIED,
    config=CONFIG_KEYS,
    fixed=FIXED | {"architectures": ["BertForPreTraining"]},
    obsolete=("embeddings.position_ids",),
)


class PreTrainingLogits(NamedTuple):
    """Scores of the two tasks: every token of the vocabulary, and (is next, is not)."""

    mlm: Tensor
    nsp: Float[Tensor, "b 2"]


class BertForPreTraining(nn.Module):
    """BERT with its two heads: masked language modeling and next-sentence prediction (3.1)."""

    def __init__(self, encoder: Bert) -> None:
        super().__init__()
        self.config, self.hub_format, self.encoder = encoder.config, PRETRAINING_FORMAT, encoder
        self.pooler = Pooler(encoder.config.d_model, linear=encoder.ops.linear)
        self.mlm = MaskedLMHead(encoder)
        self.nsp = Linear(encoder.config.d_model, 2, op=encoder.ops.linear)
        init_bert(self.nsp)

    def forward(
        self,
        tokens: Int[Tensor, "b t"],
        *,
        at: Bool[Tensor, "b t"] | None = None,
        **options: Any,
    ) -> PreTrainingLogits:
        """Scores for every token, or only for those where `at` is True, `(n, v)`.

        `options` go to the encoder (segments, positions, attention_mask). With 15% of the tokens
        masked, `at` saves 85% of the largest product of the model.
        """
        hidden = self.encoder(tokens, **options)
        chosen = hidden if at is None else hidden[at]
        return PreTrainingLogits(
            self.mlm(chosen, self.encoder.tokens.weight), self.nsp(self.pooler(hidden))
        )


class BertForMaskedLM(nn.Module):
    """BERT with the head for masked tokens alone, as RoBERTa pretrains it (Liu et al. 2019)."""

    def __init__(self, encoder: Bert, *, hub_format: HubFormat = MASKED_LM_FORMAT) -> None:
        super().__init__()
        self.config, self.hub_format, self.encoder = encoder.config, hub_format, encoder
        self.mlm = MaskedLMHead(encoder)

    def forward(
        self,
        tokens: Int[Tensor, "b t"],
        *,
        at: Bool[Tensor, "b t"] | None = None,
        **options: Any,
    ) -> Float[Tensor, "*n v"]:
        """Scores for every token, or only for those where `at` is True, `(n, v)`."""
        hidden = self.encoder(tokens, **options)
        return self.mlm(hidden if at is None else hidden[at], self.encoder.tokens.weight)


def masked_lm_loss(
    model: BertForMaskedLM,
    batch: tuple[Tensor, Tensor],
    *,
    cross_entropy: Callable[..., Tensor] = cross_entropy,
) -> tuple[Float[Tensor, ""], int]:
    """Summed cross-entropy of the masked tokens, and their number; `batch` is (inputs, targets)."""
    inputs, targets = batch
    at = targets != -100
    return cross_entropy(model(inputs, at=at), targets[at], reduction="sum"), int(at.sum())


def pretraining_loss(
    model: nn.Module,
    batch: Any,
    *,
    next_sentence: bool = True,
    cross_entropy: Callable[..., Tensor] = cross_entropy,
) -> tuple[Float[Tensor, ""], int]:
    """(⟨masked-token loss⟩ + ⟨next-sentence loss⟩) · n, and n, the number of masked tokens.

    `batch` is a `data.masking.PreTrainingBatch`. `next_sentence=False` leaves the second term out.
    """
    at = batch.targets != -100
    logits = model(
        batch.tokens, at=at, segments=batch.segments, attention_mask=batch.attention_mask
    )
    n = int(at.sum())
    loss = cross_entropy(logits.mlm, batch.targets[at], reduction="sum")
    if next_sentence:
        loss = loss + n * cross_entropy(logits.nsp, batch.is_random)
    return loss, n


def bert_for_pretraining(*, ops: Ops | None = None, **overrides: Any) -> BertForPreTraining:
    """BERT-base with both heads; `overrides` change config fields."""
    return BertForPreTraining(bert(ops=ops, **overrides))


def bert_for_masked_lm(*, ops: Ops | None = None, **overrides: Any) -> BertForMaskedLM:
    """BERT-base with the head for masked tokens; `overrides` change config fields."""
    return BertForMaskedLM(bert(ops=ops, **overrides))
