"""Learn a unigram vocabulary: begin with far too many pieces, fit, prune, repeat (Kudo 2018).

The likelihood of a corpus of words w with counts n(w) is L = Σ n(w) ln p(w), where p(w) is the sum
over *all* segmentations of w. Expectation-maximization raises it: the E-step counts how often each
piece is used on average, given the present probabilities; the M-step makes the probabilities
proportional to those counts. Pruning then drops the pieces whose absence would cost L least.

SentencePiece's trainer differs in two places, on purpose: it starts from a suffix array, and its
M-step passes the counts through a digamma function, which makes rare pieces rarer still (and L may
then fall).
"""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping

from minillm.tokenizers.base import well_formed
from minillm.tokenizers.scored_bpe import BLANK
from minillm.tokenizers.sentencepiece import Normalizer, SentencePieceTokenizer
from minillm.tokenizers.sentencepiece_model import (
    Kind,
    Method,
    Piece,
    Rules,
    SentencePieceModel,
)
from minillm.tokenizers.unigram import Unigram, posteriors, viterbi

CONTROLS = ("<unk>", "<s>", "</s>")


def train_unigram(
    texts: str | Iterable[str],
    vocab_size: int,
    *,
    coverage: float | int = 1.0,
    byte_fallback: bool = False,
    longest: int = 16,
    n_seeds: int | None = None,
    n_steps: int = 2,
    shrink: float = 0.75,
    rules: Rules | None = None,
) -> SentencePieceTokenizer:
    """Return a unigram tokenizer with `vocab_size` pieces learned from `texts`.

    The most frequent characters, `coverage` of all, always stay; the others are `<unk>`, or bytes
    if `byte_fallback`. Seeds are the `n_seeds` substrings of words (at most `longest` characters)
    that cover most text; each round takes `n_steps` steps of EM and keeps `shrink` of the pieces.
    """
    rules = Rules() if rules is None else rules
    counts = count_words(texts, rules)
    kept = frequent_characters(counts, coverage)
    fixed = len(CONTROLS) + 256 * byte_fallback
    wanted = vocab_size - fixed
    if wanted < len(kept):
        raise ValueError(
            f"vocab_size {vocab_size} is too small: {fixed} special pieces and {len(kept)} "
            "characters need a place each; raise it or lower coverage"
        )
    counts = readable(counts, kept)
    scores = seed_pieces(counts, n_seeds or 10 * wanted, longest)
    while True:
        for _ in range(n_steps):
            scores, _ = em_step(scores, counts)
        if len(scores) <= max(wanted, len(kept)):
            break
        size = max(wanted, int(shrink * len(scores)))
        scores = prune(scores, counts, size)
    return _tokenizer(scores, rules, byte_fallback)


def _tokenizer(
    scores: Mapping[str, float], rules: Rules, byte_fallback: bool
) -> SentencePieceTokenizer:
    pieces = [Piece("<unk>", 0.0, Kind.UNKNOWN)]
    pieces += [Piece(name, 0.0, Kind.CONTROL) for name in CONTROLS[1:]]
    pieces += [Piece(f"<0x{b:02X}>", 0.0, Kind.BYTE) for b in range(256)] if byte_fallback else []
    ordered = sorted(scores, key=lambda piece: (-scores[piece], piece))
    pieces += [Piece(text, scores[text]) for text in ordered]
    return SentencePieceTokenizer(
        SentencePieceModel(tuple(pieces), Method.UNIGRAM, rules, byte_fallback=byte_fallback)
    )


def count_words(texts: str | Iterable[str], rules: Rules) -> Counter[str]:
    """Return how often each word, with the blank in front as `▁`, occurs."""
    normalize, counts = Normalizer(rules), Counter()
    for text in [texts] if isinstance(texts, str) else texts:
        if not isinstance(text, str):
            raise ValueError(f"texts must be strings, got {text!r:.60} ({type(text).__name__})")
        for line in well_formed(text).splitlines():
            words = normalize(line).split(BLANK)
            counts.update(words[:1] if words[0] else [])
            counts.update(BLANK + word for word in words[1:] if word)
    if not counts:
        raise ValueError("the texts hold no word: there is nothing to learn from")
    return counts


def frequent_characters(counts: Mapping[str, int], coverage: float | int) -> set[str]:
    """Return the most frequent characters that make up `coverage` of the text."""
    if not 0 < coverage <= 1:
        raise ValueError(f"coverage is {coverage}: give a share above 0 and at most 1")
    letters = Counter()
    for word, n in counts.items():
        for c in word:
            letters[c] += n
    kept, so_far, total = set(), 0, letters.total()
    for c, n in sorted(letters.items(), key=lambda item: (-item[1], item[0])):
        if so_far >= coverage * total:
            break
        kept.add(c)
        so_far += n
    return kept


def readable(counts: Mapping[str, int], kept: set[str]) -> Counter[str]:
    """Return the parts of words between characters that have no place in the vocabulary."""
    parts = Counter()
    for word, n in counts.items():
        start = 0
        for i, c in enumerate([*word, None]):
            if c not in kept:
                if start < i:
                    parts[word[start:i]] += n
                start = i + 1
    return parts


def seed_pieces(counts: Mapping[str, int], n_seeds: int, longest: int = 16) -> dict[str, float]:
    """Return log-probabilities of the substrings that cover most text, all characters included."""
    found, letters = Counter(), Counter()
    for word, n in counts.items():
        for start in range(len(word)):
            letters[word[start]] += n
            for end in range(start + 2, min(start + longest, len(word)) + 1):
                found[word[start:end]] += n
    covers = {piece: n * len(piece) for piece, n in found.items() if n > 1}
    best = sorted(covers, key=lambda piece: (-covers[piece], piece))
    weights = dict(letters) | {piece: covers[piece] for piece in best[: max(n_seeds, 0)]}
    total = math.log(sum(weights.values()))
    return {piece: math.log(weight) - total for piece, weight in weights.items()}


def em_step(
    scores: Mapping[str, float], counts: Mapping[str, int]
) -> tuple[dict[str, float], float]:
    """Return new scores, and the log-likelihood under the old ones: one step of EM.

    The likelihood under the new scores is never smaller. Pieces of several characters that are not
    expected anywhere any more (less than 1e-6 times) go; characters stay.
    """
    expected, likelihood = expected_counts(scores, counts)
    usable = {p: n for p, n in expected.items() if n > 1e-6 or len(p) == 1}
    smallest = 1e-6  # a character that other pieces cover everywhere
    total = math.log(sum(max(n, smallest) for n in usable.values()))
    return {p: math.log(max(n, smallest)) - total for p, n in usable.items()}, likelihood


def expected_counts(
    scores: Mapping[str, float], counts: Mapping[str, int]
) -> tuple[dict[str, float], float]:
    """Return how often each piece is used on average, and Σ n(w) ln p(w): the E-step."""
    model, likelihood = Unigram(scores), 0.0
    expected = dict.fromkeys(scores, 0.0)
    for word, n in counts.items():
        arcs = model.lattice(word)
        shares, log_p = posteriors(arcs, len(word))
        likelihood += n * log_p
        for arc, share in zip(arcs, shares, strict=True):
            piece = word[arc.start : arc.end]
            if piece not in expected:
                raise ValueError(f"the character {piece!r} of {word!r:.60} is no piece: add it")
            expected[piece] += n * share
    return expected, likelihood


def prune(scores: Mapping[str, float], counts: Mapping[str, int], size: int) -> dict[str, float]:
    """Return the `size` pieces that are worth most; single characters always stay."""
    losses = removal_losses(scores, counts)
    letters = [piece for piece in scores if len(piece) == 1]
    others = sorted(losses, key=lambda piece: (-losses[piece], piece))
    kept = [*letters, *others[: max(size - len(letters), 0)]]
    total = math.log(sum(math.exp(scores[piece]) for piece in kept))
    return {piece: scores[piece] - total for piece in kept}


def removal_losses(scores: Mapping[str, float], counts: Mapping[str, int]) -> dict[str, float]:
    """Return by how much the likelihood of the best segmentations falls without each long piece.

    Its uses in them, times the score that each loses when the best other cut of the piece takes
    over. A piece that is not its own best segmentation is never used and costs nothing.
    """
    model, uses = Unigram(scores), defaultdict(int)
    for word, n in counts.items():
        for piece in model.best(word):
            uses[piece] += n
    losses = {}
    for piece in scores:
        if len(piece) == 1:
            continue
        arcs = [arc for arc in model.lattice(piece) if arc.end - arc.start < len(piece)]
        _, other = viterbi(arcs, len(piece))
        losses[piece] = uses[piece] * max(scores[piece] - other, 0.0)
    return losses
