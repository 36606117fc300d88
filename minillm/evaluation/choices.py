"""Multiple choice by likelihood: the answer that a language model finds likeliest (GPT-3, 2.4).

    log p(answer | examples, question) = Σⱼ log p(answerⱼ | examples, question, answer₁ … answerⱼ₋₁)

Nothing is generated and no weight changes: the questions that were solved stand in the prompt. They
are the same for every question, so they are read once and kept in a cache.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from minillm.generation.cache import ContiguousCache
from minillm.models.causal_lm import CausalLM
from minillm.nn.modes import evaluation_mode


@runtime_checkable
class Encodes(Protocol):
    """A tokenizer of any kind."""

    def encode(self, text: str) -> list[int]:
        """The ids of a text."""
        ...


@dataclass(frozen=True)
class Question:
    """`text` and what may follow it; `answer` is the place of the right choice.

    The space between both belongs to the choice, " positive": with a byte-level BPE the ids of
    text and choice are then those of the joined text.
    """

    text: str
    choices: tuple[str, ...]
    answer: int

    def __post_init__(self) -> None:
        if len(self.choices) < 2 or not 0 <= self.answer < len(self.choices):
            raise ValueError(
                f"answer {self.answer} of {len(self.choices)} choices: give two or more choices, "
                "and the place of the right one"
            )
        if not all(self.choices):
            raise ValueError(f"an empty choice in {self.choices}; every choice needs a character")

    @property
    def solved(self) -> str:
        """The question with its right answer, as an example in a prompt."""
        return self.text + self.choices[self.answer]


def few_shot_prompt(
    examples: Iterable[Question], *, instruction: str = "", separator: str = "\n\n"
) -> str:
    """What stands before a question: the instruction, then every example solved."""
    parts = [instruction] if instruction else []
    return "".join(part + separator for part in [*parts, *(one.solved for one in examples)])


@dataclass(frozen=True)
class ScoredQuestion:
    """log p of every choice in nats, and the lengths by which it may be divided."""

    question: Question
    log_p: Float[Tensor, " k"]
    n_tokens: tuple[int, ...]

    def prediction(self, by: Literal["sum", "token", "byte"] = "sum") -> int:
        """The place of the best choice: by its log p, or log p per token, or per UTF-8 byte.

        A sum favors short answers. lm-eval calls "sum" acc, and "byte" (in characters) acc_norm.
        """
        if by not in ("sum", "token", "byte"):
            raise ValueError(f'by must be "sum", "token" or "byte", got {by!r}')
        n_bytes = [len(choice.encode()) for choice in self.question.choices]
        lengths = {"sum": [1] * len(n_bytes), "token": self.n_tokens, "byte": n_bytes}[by]
        return int((self.log_p / torch.tensor(lengths)).argmax())

    def right(self, by: Literal["sum", "token", "byte"] = "sum") -> bool:
        """Whether that is the right one."""
        return self.prediction(by) == self.question.answer


def accuracy(
    scored: Sequence[ScoredQuestion], by: Literal["sum", "token", "byte"] = "sum"
) -> float:
    """Share of the questions whose best choice is the right one."""
    if not scored:
        raise ValueError("no questions: accuracy of nothing is not defined")
    return sum(one.right(by) for one in scored) / len(scored)


@torch.no_grad()
def answer(
    model: CausalLM,
    tokenizer: Encodes,
    questions: Sequence[Question],
    *,
    examples: Iterable[Question] = (),
    instruction: str = "",
    separator: str = "\n\n",
    start: int | None = None,
) -> list[ScoredQuestion]:
    """Score the choices of every question behind the same prompt; `start` is a first id, if any.

    Zero-shot without `examples`, one-shot with one, few-shot with more. With no prompt, no start
    and a question whose text is empty there is nothing to predict from: a ValueError.
    """
    prompt = few_shot_prompt(examples, instruction=instruction, separator=separator)
    prefix = [] if start is None else [start]
    prefix += tokenizer.encode(prompt) if prompt else []
    ids = [
        (tokenizer.encode(one.text), [tokenizer.encode(choice) for choice in one.choices])
        for one in questions
    ]
    with evaluation_mode(model):
        return [
            ScoredQuestion(question, log_p, tuple(len(choice) for choice in choices))
            for question, (_, choices), log_p in zip(
                questions, ids, log_likelihoods(model, prefix, ids), strict=True
            )
        ]


@torch.no_grad()
def log_likelihoods(
    model: CausalLM,
    prefix: Sequence[int],
    questions: Sequence[tuple[Sequence[int], Sequence[Sequence[int]]]],
) -> list[Float[Tensor, " k"]]:
    """log p(choice | prefix, text) for the choices of each (text, choices), all given as ids.

    The prefix is read once, a question's text once, and its choices in one batch.
    """
    longest = max((len(t) + max(map(len, c)) for t, c in questions), default=0)
    cache = ContiguousCache.for_model(model, max_seq_len=max(1, len(prefix) + longest))
    device = next(model.parameters()).device
    last = None
    if len(prefix):
        last = model(torch.tensor([list(prefix)], device=device), cache=cache, last_only=True)
    found = []
    for text, choices in questions:
        logits = last
        if len(text):
            logits = model(torch.tensor([list(text)], device=device), cache=cache, last_only=True)
        if logits is None:
            raise ValueError("nothing stands before the choices; give a text, a prompt or a start")
        first = torch.tensor([choice[0] for choice in choices], device=device)
        log_p = _wide(logits[0, -1]).log_softmax(-1)[first]
        if max(map(len, choices)) > 1:
            log_p = log_p + _rest(model, cache, choices)
        cache.rollback(len(prefix))
        found.append(log_p.cpu())
    return found


def _rest(
    model: CausalLM, cache: ContiguousCache, choices: Sequence[Sequence[int]]
) -> Float[Tensor, " k"]:
    """log p of every choice's ids after the first, all choices as rows of one batch."""
    device = next(model.parameters()).device
    rows = [torch.tensor(list(choice), device=device) for choice in choices]
    ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=-100)
    inputs, targets = ids[:, :-1].clamp(min=0), ids[:, 1:]
    many = ContiguousCache.for_model(model, batch=len(rows), max_seq_len=cache.max_seq_len)
    for new, old in zip(many.layers, cache.layers, strict=True):
        k, v = (
            x[:, :, : cache.length].expand(len(rows), -1, -1, -1) for x in (old.keys, old.values)
        )
        new.append(k, v)
    logits = model(inputs, cache=many)
    return -torch.nn.functional.cross_entropy(
        _wide(logits).mT, targets, reduction="none", ignore_index=-100
    ).sum(-1)


def _wide(logits: Tensor) -> Tensor:
    """At least float32."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))
