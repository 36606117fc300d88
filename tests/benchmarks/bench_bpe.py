"""Byte-pair encoding against the `tokenizers` package, interleaved: `python bench_bpe.py`.

Both sides train 32,000 tokens on the 249 State of the Union speeches (12 MB) with GPT-2's split and
then encode all of them, one call for the whole batch, with a fresh tokenizer each time (nothing is
remembered from the round before). Ours is plain Python on one thread; theirs is Rust and uses as
many threads as it likes. Each round times both sides in turn; the medians are compared, since
only the ratio means something on a shared machine. The merges and the ids must be equal.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable

import tokenizers

from minillm.data import corpus
from minillm.tokenizers import BPETokenizer, train_bpe
from minillm.tokenizers.tokenizer_json import to_visible


def reference(texts: list[str], vocab_size: int) -> tokenizers.Tokenizer:
    """Train the same tokenizer with the `tokenizers` package."""
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=vocab_size,
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def timed(function: Callable, *arguments: object) -> tuple[object, float]:
    """Return what the call returns and its seconds."""
    start = time.perf_counter()
    result = function(*arguments)
    return result, time.perf_counter() - start


def main() -> None:
    """Print one line for training and one for encoding."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--vocab-size", type=int, default=32_000)
    options = parser.parse_args()
    texts = corpus.documents("sotu")
    megabytes = sum(len(text.encode()) for text in texts) / 1e6
    seconds = {"train": ([], []), "encode": ([], [])}
    for _ in range(options.rounds):
        ours, t = timed(train_bpe, texts, options.vocab_size)
        theirs, u = timed(reference, texts, options.vocab_size)
        merges = json.loads(theirs.to_str())["model"]["merges"]
        assert merges == [[to_visible(left), to_visible(right)] for left, right in ours.merges]
        seconds["train"][0].append(t)
        seconds["train"][1].append(u)

        fresh = BPETokenizer(ours.ids, ours.patterns, merges=ours.merges)
        ids, t = timed(fresh.encode_batch, texts)
        encodings, u = timed(tokenizers.Tokenizer.from_str(theirs.to_str()).encode_batch, texts)
        assert ids == [encoding.ids for encoding in encodings]
        seconds["encode"][0].append(t)
        seconds["encode"][1].append(u)
    for task, bar in (("train", 0.8), ("encode", 2.0)):
        a, b = map(statistics.median, seconds[task])
        print(f"{task}: minillm {megabytes / a:.1f} MB/s, tokenizers {megabytes / b:.1f} MB/s")
        print(f"ratio bpe-{task} minillm/tokenizers {b / a:.2f} (bar {bar})")


if __name__ == "__main__":
    main()
