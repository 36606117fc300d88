"""BLEU (Papineni et al. 2002): how many n-grams of a translation occur in a reference.

    pₙ = Σ clipped matches of n-grams / Σ n-grams of the hypotheses        (over the whole corpus)
    BP = min(1, e^(1 − r/c))        c, r: tokens of the hypotheses, of the closest references
    BLEU = 100 · BP · (p₁ p₂ p₃ p₄)^¼

A score depends on how text is cut into tokens and on what is done when some pₙ is 0, so both are
named options with sacrebleu's names and defaults (Post 2018), and the numbers are equal to its.
"""

import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

Smoothing = Literal["exp", "floor", "add-k", "none"]
_DEFAULTS = {"exp": 0.0, "floor": 0.1, "add-k": 1.0, "none": 0.0}
_ENTITIES = (("&quot;", '"'), ("&amp;", "&"), ("&lt;", "<"), ("&gt;", ">"))
# ASCII punctuation but ' , - . always stands alone; a dash only after a digit; a period and a
# comma everywhere but between two digits.
_STEPS = (
    (re.compile(r"([{-~\[-` -&(-+:-@/])"), r" \1 "),
    (re.compile(r"([^0-9])([.,])"), r"\1 \2 "),
    (re.compile(r"([.,])([^0-9])"), r" \1 \2"),
    (re.compile(r"([0-9])(-)"), r"\1 \2 "),
)
# What sacrebleu's "zh" takes for a Chinese character. The first range is an accident of its code,
# which writes U+20000 as "\u2000" and "0": dashes, arrows and quotation marks fall into it, and
# the rare characters from U+20000 on do not. Equal scores need equal accidents.
_CHINESE = re.compile(
    "([\u2001-\u2a6d\u2e80-\u2fdf\u2ff0-\u303f\u3100-\u312f\u31a0-\u31ef\u3200-\u4db5"
    "\u4e00-\u9fbb\uf900-\ufa2d\ufa30-\ufa6a\ufa70-\ufad9\ufe10-\ufe1f\ufe30-\ufe4f\uff00-\uffef])"
)


def tokenize_13a(text: str) -> list[str]:
    """Words and punctuation as mteval-v13a cuts them, WMT's standard for European languages."""
    text = text.rstrip().replace("<skipped>", "").replace("-\n", "").replace("\n", " ")
    for entity, character in _ENTITIES:
        text = text.replace(entity, character)
    return _western(f" {text} ")


def tokenize_zh(text: str) -> list[str]:
    """Every Chinese character by itself, the rest as in 13a; for Chinese references."""
    return _western(_CHINESE.sub(r" \1 ", text.strip()))


def tokenize_char(text: str) -> list[str]:
    """Every character by itself, blanks dropped."""
    return [character for character in text if not character.isspace()]


def tokenize_none(text: str) -> list[str]:
    """What blanks separate: for text that is tokenized already."""
    return text.split()


TOKENIZERS: dict[str, Callable[[str], list[str]]] = {
    "13a": tokenize_13a,
    "zh": tokenize_zh,
    "char": tokenize_char,
    "none": tokenize_none,
}


def _western(text: str) -> list[str]:
    for pattern, replacement in _STEPS:
        text = pattern.sub(replacement, text)
    return text.split()


@dataclass(frozen=True)
class Bleu:
    """A score from 0 to 100 and what it is made of; `precisions` are in percent, smoothed."""

    score: float
    precisions: tuple[float, ...]
    brevity_penalty: float
    matches: tuple[int, ...]
    totals: tuple[int, ...]
    hypothesis_length: int
    reference_length: int


def ngrams(tokens: Sequence[str], max_n: int) -> Counter[tuple[str, ...]]:
    """How often each n-gram of 1 to `max_n` tokens occurs."""
    return Counter(
        tuple(tokens[i : i + n]) for n in range(1, max_n + 1) for i in range(len(tokens) - n + 1)
    )


def clipped_matches(
    hypothesis: Sequence[str], references: Sequence[Sequence[str]], max_n: int = 4
) -> tuple[list[int], list[int]]:
    """(matches, totals) for n = 1 … `max_n`.

    An n-gram counts as often as it occurs in the hypothesis, but not more often than in the
    reference that has it most: "the the the the" matches "the cat" once.
    """
    allowed: Counter[tuple[str, ...]] = Counter()
    for reference in references:
        allowed |= ngrams(reference, max_n)
    matches, totals = [0] * max_n, [0] * max_n
    for ngram, count in ngrams(hypothesis, max_n).items():
        totals[len(ngram) - 1] += count
        matches[len(ngram) - 1] += min(count, allowed[ngram])
    return matches, totals


def brevity_penalty(hypothesis_length: int, reference_length: int) -> float:
    """min(1, e^(1 − r/c)): short translations cannot buy precision; 0 for an empty one."""
    if hypothesis_length >= reference_length:
        return 1.0
    if hypothesis_length == 0:
        return 0.0
    return math.exp(1 - reference_length / hypothesis_length)


def bleu(
    hypotheses: Sequence[str],
    references: Sequence[str | Sequence[str]],
    *,
    tokenize: str | Callable[[str], list[str]] = "13a",
    smoothing: Smoothing = "exp",
    smooth_value: float | int | None = None,
    max_n: int = 4,
    effective_order: bool = False,
    lowercase: bool = False,
) -> Bleu:
    """Corpus BLEU: matches and lengths are summed over all sentences before anything is divided.

    Args:
        hypotheses: one translation per source sentence.
        references: for each of them one reference, or several.
        tokenize: "13a", "zh", "char", "none", or a function from text to tokens.
        smoothing: what a pₙ without matches becomes. "exp": 1/(2ᵏ total) for the k-th such n;
            "floor": `smooth_value`/total (0.1); "add-k": `smooth_value` (1) is added above and
            below the line for every n > 1; "none": 0, and with it the score.
        effective_order: leave out the n that no hypothesis is long enough for. Needed for
            sentences; a sentence of three tokens has no 4-gram.
        lowercase: ignore case.
    """
    cut = _tokenizer(tokenize)
    _check(hypotheses, references, smoothing, max_n)
    matches, totals, c, r = [0] * max_n, [0] * max_n, 0, 0
    for hypothesis, given in zip(hypotheses, references, strict=True):
        texts = [given] if isinstance(given, str) else given
        tokens, *others = (
            cut(text.lower() if lowercase else text) for text in (hypothesis, *texts)
        )
        found, possible = clipped_matches(tokens, others, max_n)
        matches = [a + b for a, b in zip(matches, found, strict=True)]
        totals = [a + b for a, b in zip(totals, possible, strict=True)]
        c += len(tokens)
        r += min((abs(len(other) - len(tokens)), len(other)) for other in others)[1]
    value = _DEFAULTS[smoothing] if smooth_value is None else smooth_value
    precisions, order = smoothed(matches, totals, smoothing, value)
    penalty = brevity_penalty(c, r)
    used = precisions[:order] if effective_order and order else precisions
    score = 0.0
    if all(p > 0 for p in used):
        score = penalty * math.exp(sum(math.log(p) for p in used) / len(used))
    return Bleu(score, tuple(precisions), penalty, tuple(matches), tuple(totals), c, r)


def smoothed(
    matches: Sequence[int], totals: Sequence[int], smoothing: str, value: float | int
) -> tuple[list[float], int]:
    """100 · matches/totals for every n, zeros replaced as `smoothing` says; how many n have totals.

    Without a single match all are 0: nothing was right, and no smoothing changes that.
    """
    precisions, halvings, order = [0.0] * len(matches), 1.0, 0
    if not any(matches):
        return precisions, order
    for i, (found, total) in enumerate(zip(matches, totals, strict=True)):
        if smoothing == "add-k" and i > 0:
            found, total = found + value, total + value
        if total == 0:
            break
        order = i + 1
        if found == 0 and smoothing == "exp":
            halvings *= 2
            precisions[i] = 100 / (halvings * total)
        elif found == 0 and smoothing == "floor":
            precisions[i] = 100 * value / total
        else:
            precisions[i] = 100 * found / total
    return precisions, order


def _tokenizer(tokenize: str | Callable[[str], list[str]]) -> Callable[[str], list[str]]:
    if callable(tokenize):
        return tokenize
    if tokenize not in TOKENIZERS:
        raise ValueError(f"tokenize is {tokenize!r}; choose {', '.join(TOKENIZERS)} or a function")
    return TOKENIZERS[tokenize]


def _check(hypotheses: Sequence, references: Sequence, smoothing: str, max_n: int) -> None:
    for name, texts in (("hypotheses", hypotheses), ("references", references)):
        if isinstance(texts, str):
            raise ValueError(f"{name} are one string, {texts!r:.40}; give a list of sentences")
    if len(hypotheses) != len(references) or not hypotheses:
        raise ValueError(
            f"{len(hypotheses)} hypotheses and {len(references)} references; give one (or a list) "
            "for each, and at least one"
        )
    if smoothing not in _DEFAULTS:
        raise ValueError(f"smoothing is {smoothing!r}; choose one of {', '.join(_DEFAULTS)}")
    if type(max_n) is not int or max_n < 1:
        raise ValueError(f"max_n is {max_n!r}; give a whole number, at least 1 (4 is usual)")
    if any(not isinstance(given, str) and not given for given in references):
        raise ValueError("a hypothesis has no reference at all; give it one or leave it out")
