"""Wrong arguments get a ValueError that names them, also where nothing checks types at run time."""

import subprocess
import sys

SCRIPT = """
import torch
from minillm.tokenizers import BPETokenizer, ByteTokenizer, CharTokenizer
from minillm.tokenizers.bpe_train import count_pretokens, train_bpe

t, bytes_of = ByteTokenizer({"<e>": 256}), {bytes([i]): i for i in range(256)}


def bpe(**options):
    return lambda: BPETokenizer(bytes_of, **options)


def train(texts="aaab", vocab_size=258, **options):
    return lambda: train_bpe(texts, vocab_size, **options)


CASES = [
    (lambda: t.decode([65], errors="bogus"), "errors is 'bogus': choose one of replace, strict"),
    (lambda: t.decode([65], None), "errors is None"),
    (lambda: t.decode_batch([[65]], errors=3), "errors is 3"),
    (lambda: list(t.decode_stream([65], ["strict"])), "errors is ['strict']"),
    (lambda: list(t.decode_stream(65)), "ids is 65: give ids one after the other"),
    (lambda: t.decode(65), "token id 65 is not in the vocabulary"),
    (lambda: t.decode(torch.tensor([65.0])), "token id tensor(65.) is not in the vocabulary"),
    (lambda: t.decode(torch.tensor([[65, 66]])), "token id tensor([65, 66])"),
    (lambda: t.decode_batch(None), "batch is None: give a list of lists of ids"),
    (lambda: t.encode_batch(None), "texts is None: give a string, or a list of strings"),
    (lambda: t.encode_batch(b"ab"), "texts is b'ab'"),
    (lambda: ByteTokenizer({"<e>": 256}, eos=["<e>"]), "eos ['<e>'] is not one of the special"),
    (lambda: CharTokenizer(None), "vocab is None: give a dict"),
    (lambda: CharTokenizer(["a"]), "vocab is ['a']"),
    (lambda: CharTokenizer.from_text(None), "texts is None"),
    (lambda: CharTokenizer.from_text([1]), "the text must be a str, got 1"),
    (lambda: CharTokenizer.from_text("ab", max_entries="3"), "max_entries is '3': give 1 or more"),
    (lambda: CharTokenizer.from_text("ab", max_entries=-1), "max_entries is -1"),
    (lambda: CharTokenizer.from_text("ab", special_tokens=None), "special_tokens is None: give a"),
    (lambda: BPETokenizer(None), "ranks is None: give a dict from bytes to id"),
    (lambda: BPETokenizer([b"a"]), "ranks is [b'a']"),
    (bpe(pattern=3), "pattern is 3: give a regular expression"),
    (bpe(merges=3), "merges is 3: give pairs of bytes in order"),
    (bpe(merges=["a b"]), "merge 0 is 'a b': give two tokens as bytes"),
    (bpe(merges=[([1], [2])]), "merge 0 is ([1], [2])"),
    (bpe(merges=[(b"a",)]), "merge 0 is (b'a',)"),
    (train(vocab_size="300"), "vocab_size is '300': give a whole number"),
    (train(vocab_size=300.0), "vocab_size is 300.0"),
    (train(min_frequency=None), "min_frequency is None"),
    (train(texts=None), "texts is None"),
    (train(texts=b"ab"), "texts is b'ab'"),
    (train(special_tokens=None), "special_tokens is None"),
    (lambda: count_pretokens(3), "texts is 3"),
]
for number, (call, message) in enumerate(CASES):
    try:
        call()
    except ValueError as error:
        assert message in str(error), f"case {number}: {message!r} is not in {error}"
    else:
        raise AssertionError(f"case {number}: no error, expected {message!r}")
assert t.decode([255], "ignore") == "" and t.decode([255], "backslashreplace") == r"\\xff"
print(len(CASES), "cases")
"""


def test_mistakes_are_named():
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "33 cases"
