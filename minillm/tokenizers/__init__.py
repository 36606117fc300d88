"""Text to tokens and back: characters, words, bytes, BPE, WordPiece, Unigram, SentencePiece."""

from minillm.tokenizers.base import Tokenizer
from minillm.tokenizers.bpe import BPETokenizer
from minillm.tokenizers.bpe_train import count_pretokens, learn_merges, train_bpe
from minillm.tokenizers.patterns import CL100K, GPT2, O200K
from minillm.tokenizers.sentencepiece import SentencePieceTokenizer
from minillm.tokenizers.simple import ByteTokenizer, CharTokenizer, WordTokenizer
from minillm.tokenizers.unigram import Unigram
from minillm.tokenizers.unigram_json import UnigramTokenizer
from minillm.tokenizers.unigram_train import em_step, train_unigram
from minillm.tokenizers.wordpiece import WordPieceTokenizer
from minillm.tokenizers.wordpiece_train import learn_pieces, train_wordpiece

__all__ = [
    "CL100K",
    "GPT2",
    "O200K",
    "BPETokenizer",
    "ByteTokenizer",
    "CharTokenizer",
    "SentencePieceTokenizer",
    "Tokenizer",
    "Unigram",
    "UnigramTokenizer",
    "WordPieceTokenizer",
    "WordTokenizer",
    "count_pretokens",
    "em_step",
    "learn_merges",
    "learn_pieces",
    "train_bpe",
    "train_unigram",
    "train_wordpiece",
]
