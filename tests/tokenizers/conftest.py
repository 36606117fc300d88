import random
import unicodedata
from functools import lru_cache

import pytest
import regex
import tiktoken
from tiktoken.load import load_tiktoken_bpe

from minillm import assets
from minillm.tokenizers import BPETokenizer

ASSET = {"gpt2": "gpt2-bpe", "cl100k": "cl100k", "o200k": "o200k"}


@pytest.fixture(scope="session", params=["gpt2", "cl100k", "o200k"])
def preset(request):
    """(name, our tokenizer) for each published vocabulary."""
    path = assets.fetch(ASSET[request.param])
    return request.param, getattr(BPETokenizer, request.param)(path)


@pytest.fixture(scope="session")
def gpt2():
    return BPETokenizer.gpt2(assets.fetch("gpt2-bpe"))


@pytest.fixture(scope="session")
def oracle():
    return _oracle


@pytest.fixture(scope="session")
def span_oracle():
    return _span_oracle


@pytest.fixture(scope="session")
def published_pattern():
    return _published_pattern


@pytest.fixture(scope="session")
def strings():
    """At least 40,000 random and adversarial Unicode strings, the same in every run."""
    return [*adversarial(), *random_strings(40_000)]


@lru_cache
def _published_pattern(name):
    """The split pattern as tiktoken itself ships it, not ours."""
    from tiktoken_ext import openai_public

    constructor = {"gpt2": "gpt2", "cl100k": "cl100k_base", "o200k": "o200k_base"}[name]
    original = {
        attribute: getattr(openai_public, attribute)
        for attribute in ("load_tiktoken_bpe", "data_gym_to_mergeable_bpe_ranks")
    }
    try:  # the constructors download their ranks; we only want the pattern
        for attribute in original:
            setattr(openai_public, attribute, lambda *_, **__: {})
        return getattr(openai_public, constructor)()["pat_str"]
    finally:
        for attribute, function in original.items():
            setattr(openai_public, attribute, function)


def _oracle(name, tokenizer):
    """tiktoken with the same file and its own pattern."""
    ranks = load_tiktoken_bpe(str(assets.fetch(ASSET[name])))
    return tiktoken.Encoding(
        name,
        pat_str=_published_pattern(name),
        mergeable_ranks=ranks,
        special_tokens=tokenizer.special_tokens,
    )


def _span_oracle(name, tokenizer, texts):
    """A tiktoken encoding that returns our pre-tokens if, and only if, its own are the same.

    tiktoken does not tell its pre-tokens, but it looks a whole pre-token up before merging. So let
    the vocabulary be the bytes, our pre-tokens, and every two neighbors joined: if its cuts are
    ours, each comes out as one token; if it cuts less often, a joined pair comes out; if it cuts
    more often, the longer piece cannot come out.
    """
    tokens = dict.fromkeys(bytes([byte]) for byte in range(256))
    for text in texts:
        pieces = [piece.encode() for piece in tokenizer.split(text)]
        tokens.update(dict.fromkeys(pieces))
        tokens.update(dict.fromkeys(map(b"".join, zip(pieces, pieces[1:], strict=False))))
    ranks = {token: i for i, token in enumerate(tokens)}
    return tiktoken.Encoding(
        "spans", pat_str=_published_pattern(name), mergeable_ranks=ranks, special_tokens={}
    )


def _is_new(point):
    """Was the code point assigned after this Python's Unicode version?

    `regex` and the Rust libraries follow different versions of Unicode, so a character that one
    of them does not know yet falls into different classes. That is the one known difference.
    """
    character = chr(point)
    return unicodedata.category(character) == "Cn" and not regex.match(r"\p{Cn}", character)


def random_strings(n, seed=0):
    draw = random.Random(seed)
    spaces = " \t\n\r\x0b\x0c\x1c\x1d\x1e\x1f\x85\xa0\u1680\u2003\u2028\u202f\u3000"
    digits = "0123456789٣५๔²½Ⅷ①〇"
    letters = "abcxyzABCXYZéßſKÅąжЖαΩאعहि中文字가あ𝒜𐐀ǅʰ"
    marks = "\u0301\u0308\u20dd\u0e31\u093f\u200d\ufe0f"
    signs = "'’.,;:!?-_/\\()[]{}<>@#$%^&*+=|~`\"…—₿€😀👩🇫🏽\u200b\ufeff\ufffd"
    endings = ["'s", "'t", "'re", "'ve", "'m", "'ll", "'d", "'S", "'LL", "'ſ", "\r\n", "  ", "<|"]
    alphabets = [spaces, digits, letters, marks, signs]
    for i in range(n):
        kind = i % 4
        length = draw.randrange(1, 24)
        if kind == 0:  # any code point except surrogates
            points = (draw.randrange(0x110000) for _ in range(length))
            yield "".join(chr(c) for c in points if not (0xD800 <= c < 0xE000 or _is_new(c)))
        elif kind == 1:  # the lower planes, where most letters are
            points = (draw.randrange(0x3100) for _ in range(length))
            yield "".join(chr(c) for c in points if not _is_new(c))
        else:
            pools = alphabets if kind == 2 else [*alphabets, endings]
            yield "".join(draw.choice(draw.choice(pools)) for _ in range(length))


def adversarial():
    return [
        "",
        " ",
        "\x1c\x1d\x1e\x1f",
        "a\x1cb \x1fc\x1e 1",
        "\x85x\xa0y\u3000z",
        "٣٤٥ 123456 ½²Ⅷ 12½3",
        "e\u0301\u0301 \u0301 \u0308a n\u0303o",
        "👩‍👩‍👧‍👦 👍🏽 🇫🇷🇩🇪 🏳️‍🌈",
        "中文字符 中文，字符。ひらがな 한국어",
        " " * 1000 + "x" + " " * 999,
        "\n" * 50 + " \t" * 50 + "\r\n" * 50,
        "x \n \n y\n  z  \n",
        "a" * 2000,
        "aaa aaaa aaaaa baaab " * 20,
        "abab" * 300 + "bababa" * 100,
        "ſ's 'S 'LL 'lL can't DON'T it'ſ we'ſ",
        "HelloWorld helloWORLD HTMLParser iPhone ǅungla",
        "//// /* */ ...\n\n!!!\r\n\r\n?",
        "<|endoftext|> <|endoftext <|fim_prefix|>",
        "\ufffe\uffff\U0010ffff\u0000\u0001",
        "-" * 300 + "=" * 777 + "0" * 100,
        "中" * 3000,
        "a1b2c3 1a2b3c",
        "don't' 'tis ''s s'",
    ]
