"""Wrong arguments get a ValueError that names them, also where nothing checks types at run time."""

import subprocess
import sys

SCRIPT = """
import torch
from minillm.data.batching import TokenWindows, join_documents
from minillm.data.corpus import documents, split

windows = TokenWindows(torch.arange(50), 8, 2)

CASES = [
    (lambda: join_documents([[1]], None), "separator is None; give the id"),
    (lambda: windows["a"], "batch 'a' is no number; ask for one batch"),
    (lambda: windows[0:2], "batch slice(0, 2, None) is no number"),
    (lambda: documents(["sotu"]), "no corpus is called ['sotu']; choose one of"),
    (lambda: split(None), "texts is None; give a list of strings"),
    (lambda: split([1, 2]), "texts is [1, 2]"),
    (lambda: split(["a", "b"], "0.1"), "fraction is '0.1'; give a share"),
]
for number, (call, message) in enumerate(CASES):
    try:
        call()
    except ValueError as error:
        assert message in str(error), f"case {number}: {message!r} is not in {error}"
    else:
        raise AssertionError(f"case {number}: no error, expected {message!r}")
print(len(CASES), "cases")
"""


def test_mistakes_are_named():
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "7 cases"
