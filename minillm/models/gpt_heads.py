"""GPT-1's fine-tuning (Radford et al. 2018, 3.2 and 3.3): task heads, inputs, the auxiliary loss.

A task becomes one or more sequences for every example; the state of each sequence's last token goes
through one new matrix. Everything below takes `tokens` of shape (b, r, t): r sequences an example.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from minillm.models.causal_lm import CausalLM
from minillm.models.gpt import GPT1_FORMAT, GPT2_FORMAT, GPTConfig, gpt1, gpt2
from minillm.models.hub_format import LABELS, HubFormat
from minillm.nn.linear import Linear, check_dropout, check_sizes
from minillm.nn.losses import cross_entropy
from minillm.nn.ops import Ops


@dataclass(frozen=True)
class TaskTokens:
    """The three new tokens of fine-tuning, and how each kind of task is written with them."""

    start: int
    delimiter: int
    extract: int

    def text(self, ids: Sequence[int]) -> list[list[int]]:
        """Classification: start, text, extract."""
        return [[self.start, *ids, self.extract]]

    def entailment(self, premise: Sequence[int], hypothesis: Sequence[int]) -> list[list[int]]:
        """Entailment: start, premise, delimiter, hypothesis, extract."""
        return [[self.start, *premise, self.delimiter, *hypothesis, self.extract]]

    def similarity(self, one: Sequence[int], other: Sequence[int]) -> list[list[int]]:
        """Similarity: both orders of the pair, whose states are added."""
        return self.entailment(one, other) + self.entailment(other, one)

    def choices(self, context: Sequence[int], answers: Sequence[Sequence[int]]) -> list[list[int]]:
        """Multiple choice: one sequence for each answer."""
        return [row for answer in answers for row in self.entailment(context, answer)]


def add_up(states: Float[Tensor, "b r d"], score: nn.Module) -> Float[Tensor, "b c"]:
    """Classes of a text (r = 1), or of a pair read in both orders (r = 2): score(Σ states)."""
    return score(states.sum(dim=1))


def one_score_each(states: Float[Tensor, "b r d"], score: nn.Module) -> Float[Tensor, "b r"]:
    """Multiple choice: a number for every sequence, to go through one softmax."""
    return score(states).squeeze(-1)


class TaskModel(nn.Module):
    """scores = h W (+ c) with h the state of a sequence's last real token (Radford et al., eq. 3).

    `combine` makes one row of scores from the states of an example's sequences: `add_up` or
    `one_score_each`. `dropout` acts on the states, while training. The language model stays whole,
    so that one pass gives its logits too: `both`.
    """

    def __init__(
        self,
        lm: CausalLM,
        score: nn.Module,
        combine: Callable[[Tensor, nn.Module], Tensor],
        *,
        dropout: float | int = 0.0,
        config: Any = None,
        hub_format: HubFormat | None = None,
    ) -> None:
        super().__init__()
        check_dropout(dropout)
        self.lm, self.score, self.combine = lm, score, combine
        self.config = lm.config if config is None else config
        self.hub_format = hub_format
        self.dropout = nn.Dropout(dropout) if dropout > 0 else nn.Identity()

    def forward(
        self,
        tokens: Int[Tensor, "b r t"],
        attention_mask: Bool[Tensor, "b r t"] | None = None,
    ) -> Float[Tensor, "b c"]:
        """Scores of the classes, or of the r answers; `attention_mask` is False at padding."""
        return self._scores(*self._hidden(tokens, attention_mask))

    def both(
        self,
        tokens: Int[Tensor, "b r t"],
        attention_mask: Bool[Tensor, "b r t"] | None = None,
    ) -> tuple[Float[Tensor, "b c"], Float[Tensor, "b r t v"]]:
        """Scores and next-token logits from one pass."""
        hidden, last = self._hidden(tokens, attention_mask)
        logits = self.lm.logits(hidden.flatten(0, 1)).unflatten(0, hidden.shape[:2])
        return self._scores(hidden, last), logits

    def _hidden(self, tokens: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """States (b, r, t, d), and the place of each sequence's last real token (b, r)."""
        if tokens.ndim != 3:
            raise ValueError(
                f"tokens {tuple(tokens.shape)} must be (examples, sequences of each, length); "
                "write `tokens[:, None]` for one sequence each"
            )
        if mask is None:
            mask = torch.ones_like(tokens, dtype=torch.bool)
        if mask.shape != tokens.shape or not bool(mask.any(-1).all()):
            raise ValueError(
                f"attention_mask {tuple(mask.shape)} must have the shape {tuple(tokens.shape)} "
                "and at least one real token in every row"
            )
        flat = mask.flatten(0, 1)
        positions = (flat.cumsum(1) - 1).clamp(min=0)
        hidden = self.lm.hidden(tokens.flatten(0, 1), positions=positions, attention_mask=flat)
        places = torch.arange(tokens.shape[2], device=tokens.device)
        return hidden.unflatten(0, tokens.shape[:2]), (mask * places).argmax(-1)

    def _scores(self, hidden: Tensor, last: Tensor) -> Tensor:
        index = last[..., None, None].expand(-1, -1, 1, hidden.shape[-1])
        return self.combine(self.dropout(hidden.gather(2, index).squeeze(2)), self.score)


def text_classifier(lm: CausalLM, n_classes: int, **options: Any) -> TaskModel:
    """A head for classification, entailment and similarity: one new matrix, drawn from N(0, 0.02²).

    `options` go to `TaskModel`. The matrix has no bias (eq. 3; OpenAI's code has one).
    """
    check_sizes(n_classes=n_classes)
    score = Linear(lm.config.d_model, n_classes, bias=False)
    nn.init.normal_(score.weight, std=0.02)
    return TaskModel(lm, score, add_up, **options)


def multiple_choice(lm: CausalLM, **options: Any) -> TaskModel:
    """A head that gives every answer one number; `options` go to `TaskModel`."""
    score = Linear(lm.config.d_model, 1)
    nn.init.normal_(score.weight, std=0.02)
    nn.init.zeros_(score.bias)
    return TaskModel(lm, score, one_score_each, **options)


def fine_tuning_loss(
    model: TaskModel,
    batch: tuple[Tensor, Tensor, Tensor],
    *,
    aux_weight: float | int = 0.5,
    average: Literal["text", "token"] = "text",
    cross_entropy: Callable[..., Tensor] = cross_entropy,
) -> tuple[Float[Tensor, ""], int]:
    """Σ over examples of −log p(y) + λ · language-model loss (Radford et al. 2018, eq. 5), and b.

    `batch` is (tokens "b r t", attention mask "b r t", labels "b"). The paper's sums leave open how
    the second term is averaged: over the tokens of each text and then over texts ("text", OpenAI's
    code), or over all tokens of the batch ("token", transformers). λ = `aux_weight`; 0 switches it
    off.
    """
    tokens, mask, labels = batch
    if average not in ("text", "token"):
        raise ValueError(f'average must be "text" or "token", got {average!r}')
    if not 0 <= aux_weight < float("inf"):
        raise ValueError(f"aux_weight must be 0 or more, such as 0.5, got {aux_weight}")
    n = len(labels)
    if aux_weight == 0:
        return cross_entropy(model(tokens, mask), labels, reduction="sum"), n
    scores, logits = model.both(tokens, mask)
    counted = mask[..., 1:] & mask[..., :-1]
    targets = tokens[..., 1:].masked_fill(~counted, -100)
    nll = cross_entropy(logits[:, :, :-1], targets, reduction="none")
    if average == "text":
        language = (nll.sum(-1) / counted.sum(-1).clamp(min=1)).mean(1).sum()
    else:
        language = n * nll.sum() / counted.sum()
    return cross_entropy(scores, labels, reduction="sum") + aux_weight * language, n


@dataclass(frozen=True)
class GPTClassifierConfig(GPTConfig):
    """The numbers of a GPT and of classes."""

    n_labels: int = 2


def _format(
    base: HubFormat, architecture: str, head: Mapping[str, str], **changes: Mapping[str, Any]
) -> HubFormat:
    """The format of a GPT with a head: ours of the language model are called `lm.…`."""
    names = {k: (v,) if isinstance(v, str) else v for k, v in base.keys.items()}
    return replace(
        base,
        keys={k: tuple(f"lm.{name}" for name in v) for k, v in names.items()} | head,
        fixed=base.fixed | {"architectures": [architecture]} | changes.pop("fixed", {}),
        config=base.config | changes.pop("config", {}),
        **changes,
    )


_CLASSES = {"head": {"score.weight": "score.weight"}, "config": {"id2label": LABELS}, "tied": {}}
_CHOICES = {
    "head": {
        "multiple_choice_head.summary.weight": "score.weight",
        "multiple_choice_head.summary.bias": "score.bias",
    },
    "config": {"summary_first_dropout": "dropout"},
    "fixed": {
        "summary_type": "cls_index",
        "summary_use_proj": True,
        "summary_activation": None,
        "summary_proj_to_labels": True,
    },
    "extra": {"id2label": {"0": "LABEL_0"}},
}
GPT1_CLASSIFIER_FORMAT = _format(GPT1_FORMAT, "OpenAIGPTForSequenceClassification", **_CLASSES)
GPT2_CLASSIFIER_FORMAT = _format(GPT2_FORMAT, "GPT2ForSequenceClassification", **_CLASSES)
GPT1_CHOICE_FORMAT = _format(GPT1_FORMAT, "OpenAIGPTDoubleHeadsModel", **_CHOICES)
GPT2_CHOICE_FORMAT = _format(GPT2_FORMAT, "GPT2DoubleHeadsModel", **_CHOICES)


def _classifier(lm: CausalLM, n_labels: int, hub_format: HubFormat) -> TaskModel:
    config = GPTClassifierConfig(**asdict(lm.config), n_labels=n_labels)
    return text_classifier(lm, n_labels, config=config, hub_format=hub_format)


def gpt1_classifier(*, n_labels: int = 2, ops: Ops | None = None, **overrides: Any) -> TaskModel:
    """GPT-1 with a head for classes, as OpenAIGPTForSequenceClassification in transformers."""
    return _classifier(gpt1(ops=ops, **overrides), n_labels, GPT1_CLASSIFIER_FORMAT)


def gpt2_classifier(*, n_labels: int = 2, ops: Ops | None = None, **overrides: Any) -> TaskModel:
    """GPT-2 with a head for classes, as GPT2ForSequenceClassification in transformers."""
    return _classifier(gpt2(ops=ops, **overrides), n_labels, GPT2_CLASSIFIER_FORMAT)


def gpt1_choices(*, ops: Ops | None = None, **overrides: Any) -> TaskModel:
    """GPT-1 with a head for multiple choice, as OpenAIGPTDoubleHeadsModel in transformers."""
    lm = gpt1(ops=ops, **overrides)
    return multiple_choice(lm, dropout=lm.config.dropout, hub_format=GPT1_CHOICE_FORMAT)


def gpt2_choices(*, ops: Ops | None = None, **overrides: Any) -> TaskModel:
    """GPT-2 with a head for multiple choice, as GPT2DoubleHeadsModel in transformers."""
    lm = gpt2(ops=ops, **overrides)
    return multiple_choice(lm, dropout=lm.config.dropout, hub_format=GPT2_CHOICE_FORMAT)
