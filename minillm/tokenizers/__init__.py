"""Text to tokens and back: characters, words, bytes, byte-pair encoding."""

from minillm.tokenizers.base import Tokenizer
from minillm.tokenizers.bpe import BPETokenizer
from minillm.tokenizers.bpe_train import count_pretokens, learn_merges, train_bpe
from minillm.tokenizers.patterns import CL100K, GPT2, O200K
from minillm.tokenizers.simple import ByteTokenizer, CharTokenizer, WordTokenizer

__all__ = [
    "CL100K",
    "GPT2",
    "O200K",
    "BPETokenizer",
    "ByteTokenizer",
    "CharTokenizer",
    "Tokenizer",
    "WordTokenizer",
    "count_pretokens",
    "learn_merges",
    "train_bpe",
]
