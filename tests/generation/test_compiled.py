"""`torch.compile(model)` generates the same text, in one graph, not compiled for every token."""

import shutil
import subprocess
import sys

import pytest

COMPILERS = ("c++", "g++", "clang++")  # PyTorch's code for a CPU is C++
# in a process of its own: here every call is checked by beartype, which the compiler cannot read
SCRIPT = """
import torch
from minillm.generation import ContiguousCache, generate
from minillm.models.gpt import gpt_tiny
from minillm.models.llama import smollm2
from minillm.nn import TORCH_OPS

torch.manual_seed(0)
sizes = {"vocab_size": 300, "d_model": 256, "n_layers": 1, "n_heads": 4, "ops": TORCH_OPS}
if sys.argv[1] == "gpt":
    model = gpt_tiny(**sizes).eval()
else:
    model = smollm2(n_kv_heads=2, d_ff=512, max_seq_len=64, **sizes).eval()
compiled = torch.compile(model, fullgraph=True)  # a break in the graph is an error
prompt = torch.randint(300, (1, 5))
# one compilation a token would pass the limit of 8, an error too
ours = generate(compiled, prompt, max_new_tokens=40)
assert torch.equal(ours, generate(model, prompt, max_new_tokens=40)), ours

cache, other = (ContiguousCache.for_model(model) for _ in range(2))
with torch.inference_mode():
    for piece in prompt.split(1, dim=1):
        right = model(piece, cache=other)
        torch.testing.assert_close(compiled(piece, cache=cache), right, atol=1e-4, rtol=0)

if sys.argv[1] == "gpt":  # texts of different lengths, padded on the left
    texts = torch.randint(300, (3, 5))
    options = {"attention_mask": torch.arange(5) >= torch.tensor([[2], [0], [4]])}
    ours = generate(compiled, texts, max_new_tokens=20, **options)
    assert torch.equal(ours, generate(model, texts, max_new_tokens=20, **options)), ours
print("same")
"""


@pytest.mark.timeout(900)
@pytest.mark.skipif(not any(map(shutil.which, COMPILERS)), reason="needs a C++ compiler")
@pytest.mark.parametrize("family", ["gpt", "llama"])
def test_compiled_model_continues_as_the_model_itself(family):
    command = [sys.executable, "-c", "import sys\n" + SCRIPT, family]
    done = subprocess.run(command, capture_output=True, text=True, timeout=850)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout == "same\n"
