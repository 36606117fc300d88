"""Byte-pair encoding on bytes, as in GPT-2 and every GPT since (Radford et al. 2019).

Encoding a text: cut it into pre-tokens (`patterns`), write each as UTF-8 bytes, merge the adjacent
pair with the lowest rank until none is left (`merging`). Any text can be encoded, since every byte
is a token, and decoding gives it back.

There are two ways to say which pairs merge. tiktoken's files list tokens only: a pair may merge if
its concatenation is a token, and the token's id is its rank. `tokenizer.json` lists the pairs
themselves, in order. Both are supported, exactly.
"""

import base64
import binascii
import os
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from pathlib import Path

from minillm.tokenizers.base import LARGEST_ID, Tokenizer, require_text
from minillm.tokenizers.merging import NEVER, Memo, merge
from minillm.tokenizers.patterns import CL100K, GPT2, O200K, Splitter
from minillm.tokenizers.tokenizer_json import bpe_arguments, bpe_document

END = "<|endoftext|>"
CL100K_SPECIALS = {
    END: 100257,
    "<|fim_prefix|>": 100258,
    "<|fim_middle|>": 100259,
    "<|fim_suffix|>": 100260,
    "<|endofprompt|>": 100276,
}


class BPETokenizer(Tokenizer):
    """Byte-level BPE: `ranks` maps each token's bytes to its id, the special tokens apart.

    Without `merges`, any two tokens merge whose concatenation is a token, lowest id first, and a
    pre-token that is a token is taken whole (tiktoken). With `merges`, those pairs merge in that
    order (Hugging Face); `whole_pieces` is then that format's `ignore_merges`.

    Some published vocabularies (SmolLM2's) lack bytes that their training text did not hold. With
    `drop_unknown` those bytes vanish from a text, as they do elsewhere; without it they are missed
    here and now.
    """

    def __init__(
        self,
        ranks: Mapping[bytes, int],
        pattern: str | Sequence[str] = GPT2,
        special_tokens: Mapping[str, int] | None = None,
        *,
        merges: Sequence[tuple[bytes, bytes]] | None = None,
        whole_pieces: bool | None = None,
        drop_unknown: bool = False,
        eos: str | None = None,
    ):
        special_tokens = special_tokens or {}
        if eos is None and END in special_tokens:
            eos = END
        self.ids = _checked(ranks, complete=not drop_unknown)
        super().__init__({i: token for token, i in self.ids.items()}, special_tokens, eos)
        if not isinstance(pattern, Sequence):
            raise ValueError(f"pattern is {pattern!r:.60}: give a regular expression, such as GPT2")
        if merges is not None and (isinstance(merges, str) or not isinstance(merges, Iterable)):
            raise ValueError(f"merges is {merges!r:.60}: give pairs of bytes in order, or None")
        self.patterns = (pattern,) if isinstance(pattern, str) else tuple(pattern)
        self.merges = None if merges is None else list(merges)
        self.whole_pieces = merges is None if whole_pieces is None else whole_pieces
        self._splitter = Splitter(self.patterns)
        known = {byte: self.ids.get(bytes([byte])) for byte in range(256)}
        self._byte_symbols = {byte: None if i is None else chr(i) for byte, i in known.items()}
        if merges is None:
            self._pair_ranks, self._symbol_of = Memo(self._concatenation), chr
        else:
            pairs, results = self._listed_pairs(self.merges)
            self._pair_ranks, self._symbol_of = Memo(_never, limit=0), results.__getitem__
            self._pair_ranks.update(pairs)
        self._piece_ids, self._block_ids = Memo(self.encode_piece), Memo(self._encode_block)

    def split(self, text: str) -> list[str]:
        """Return the pre-tokens of `text`; joined, they are `text`."""
        require_text(text)
        return self._splitter(text)

    def encode_ordinary(self, text: str) -> list[int]:
        """Return the ids of `text` taken literally: split it, and look up what was seen before."""
        require_text(text)
        blocks = self._splitter.blocks(text)
        return list(chain.from_iterable(map(self._block_ids.__getitem__, blocks)))

    def _encode_block(self, block: str) -> tuple[int, ...]:
        pieces = self._splitter.split_block(block)
        return tuple(chain.from_iterable(map(self._piece_ids.__getitem__, pieces)))

    def encode_piece(self, piece: str) -> tuple[int, ...]:
        """Return the ids of one pre-token: its bytes, merged."""
        data = piece.encode("utf-8")
        if self.whole_pieces and data in self.ids:
            return (self.ids[data],)
        symbols = data.decode("latin-1").translate(self._byte_symbols)
        return tuple(map(ord, merge(symbols, self._pair_ranks, self._symbol_of)))

    def _concatenation(self, pair: str) -> int:
        left, right = map(ord, pair)
        return self.ids.get(self.token_bytes[left] + self.token_bytes[right], NEVER)

    def _listed_pairs(
        self, merges: Iterable[tuple[bytes, bytes]]
    ) -> tuple[dict[str, int], list[str]]:
        ranks, results = {}, []
        for rank, pair in enumerate(merges):
            if (
                not isinstance(pair, Sequence)
                or len(pair) != 2
                or not all(isinstance(token, bytes) for token in pair)
            ):
                raise ValueError(f"merge {rank} is {pair!r:.60}: give two tokens as bytes")
            left, right = pair
            for token in (left, right, left + right):
                if token not in self.ids:
                    raise ValueError(
                        f"merge {rank} ({left!r}, {right!r}): {token!r} is not a token"
                    )
            ranks[chr(self.ids[left]) + chr(self.ids[right])] = rank
            results.append(chr(self.ids[left + right]))
        return ranks, results

    @classmethod
    def from_tiktoken(
        cls,
        path: str | os.PathLike,
        *,
        pattern: str = GPT2,
        special_tokens: Mapping[str, int] | None = None,
    ) -> "BPETokenizer":
        """Read a `.tiktoken` file: one token a line, its bytes in base64 and its rank."""
        if not isinstance(path, str | os.PathLike) or not Path(path).is_file():
            raise ValueError(f"there is no tokenizer file at {str(path)!r}")
        ranks = {}
        for number, line in enumerate(Path(path).read_bytes().splitlines(), start=1):
            try:
                if line.strip():
                    token, rank = line.split()
                    token = base64.b64decode(token, validate=True)
                    if ranks.setdefault(token, int(rank)) != int(rank):
                        raise ValueError
            except (ValueError, binascii.Error):
                raise ValueError(
                    f"line {number} of {str(path)!r} is {line!r:.60}; "
                    "expected a new token in base64 and its rank"
                ) from None
        return cls(ranks, pattern, special_tokens)

    @classmethod
    def gpt2(cls, path: str | os.PathLike) -> "BPETokenizer":
        """GPT-2's tokenizer, 50,257 tokens, from the asset `gpt2-bpe`."""
        return cls.from_tiktoken(path, pattern=GPT2, special_tokens={END: 50256})

    @classmethod
    def cl100k(cls, path: str | os.PathLike) -> "BPETokenizer":
        """The tokenizer of GPT-3.5 and GPT-4, from the asset `cl100k`."""
        return cls.from_tiktoken(path, pattern=CL100K, special_tokens=CL100K_SPECIALS)

    @classmethod
    def o200k(cls, path: str | os.PathLike) -> "BPETokenizer":
        """The tokenizer of GPT-4o, from the asset `o200k`."""
        specials = {END: 199999, "<|endofprompt|>": 200018}
        return cls.from_tiktoken(path, pattern=O200K, special_tokens=specials)

    def to_json(self) -> dict:
        """Return the content of a `tokenizer.json` with the same ids (see `tokenizer_json`)."""
        return bpe_document(
            self.ids,
            self.merges,
            self.patterns,
            self.special_tokens,
            self.whole_pieces,
            self.eos,
        )

    @classmethod
    def from_json(cls, content: dict) -> "BPETokenizer":
        """Read the content of a byte-level BPE `tokenizer.json`, ours or Hugging Face's."""
        return cls(**bpe_arguments(content))


def _never(pair: str) -> int:
    return NEVER


def _checked(ranks: Mapping[bytes, int], *, complete: bool) -> dict[bytes, int]:
    if not isinstance(ranks, Mapping):
        raise ValueError(f"ranks is {ranks!r:.60}: give a dict from bytes to id")
    for token, i in ranks.items():
        if not isinstance(token, bytes) or not token:
            raise ValueError(f"token {token!r:.80} must be non-empty bytes")
        if isinstance(i, bool) or not isinstance(i, int) or not 0 <= i <= LARGEST_ID:
            raise ValueError(
                f"token {token!r:.80} has id {i!r:.40}, not an integer from 0 to {LARGEST_ID}"
            )
    if len(set(ranks.values())) < len(ranks):
        seen = {}
        token, other = next((t, seen[i]) for t, i in ranks.items() if seen.setdefault(i, t) != t)
        raise ValueError(f"{other!r} and {token!r} share the id {ranks[token]}: give each its own")
    missing = [byte for byte in range(256) if bytes([byte]) not in ranks]
    if missing and complete:
        raise ValueError(
            f"{len(missing)} of the 256 bytes are not tokens, e.g. {missing[:8]}: add them, or "
            "pass drop_unknown=True if texts may lose them"
        )
    return dict(ranks)
