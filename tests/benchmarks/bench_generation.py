"""Greedy generation against transformers' `generate`, interleaved: `python bench_generation.py`.

All sides hold the same weights (moved by the key map of `minillm.hub`; 12.3M parameters with a
vocabulary of 4,096, 23M with one of 32,000), continue the same prompt by one token at a time, batch
1, in float32, and must say the same tokens. Ours runs as it is and compiled by `torch.compile`
(needs a C++ compiler; compiling is not timed), with a cache and without one; transformers' model
as it is and compiled. All may use every core. Each round times them in turn and the medians over
the rounds are compared: on a shared machine only ratios mean something. Generating one text reads
every weight once per token, so programs beside it that keep the memory busy slow all sides alike
and pull the ratios towards 1: run it on an idle machine.
"""

import argparse
import copy
import os
import statistics
import time
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel

from minillm.generation import generate
from minillm.hub import to_hf
from minillm.models.gpt import GPT, GPTConfig
from minillm.nn.ops import TORCH_OPS

CONTEXT, D_MODEL, LAYERS, HEADS = 256, 384, 6, 6
RATIOS = [
    ("minillm compiled", "transformers", "2.2"),
    ("minillm", "transformers", ""),
    ("minillm compiled", "transformers compiled", ""),
    ("minillm compiled", "uncached compiled", "7"),
    ("minillm", "uncached", ""),
]


def models(vocab_size: int) -> tuple[GPT, GPT2LMHeadModel]:
    """The same network twice."""
    torch.manual_seed(0)
    ours = GPT(GPTConfig(vocab_size, CONTEXT, D_MODEL, LAYERS, HEADS), ops=TORCH_OPS).eval()
    config = GPT2Config(
        vocab_size=vocab_size, n_positions=CONTEXT, n_embd=D_MODEL, n_layer=LAYERS, n_head=HEADS,
        attn_implementation="sdpa", bos_token_id=None, eos_token_id=None,
    )  # fmt: skip
    theirs = GPT2LMHeadModel(config).eval()
    theirs.load_state_dict(to_hf(ours))
    return ours, theirs


def timed(function: Callable[[], Tensor]) -> tuple[Tensor, float]:
    """Return what the call returns and its seconds."""
    start = time.perf_counter()
    result = function()
    return result, time.perf_counter() - start


def main() -> None:
    """Print, for each model, the tokens per second of each side, then the ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--prompt", type=int, default=64)
    parser.add_argument("--new", type=int, default=192)
    parser.add_argument("--vocab", type=int, nargs="+", default=[4096, 32_000])
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    for vocab_size in options.vocab:
        compare(vocab_size, options)


def compare(vocab_size: int, options: argparse.Namespace) -> None:
    """Time the ways to generate, in turn, and print what came out."""
    ours, theirs = models(vocab_size)
    compiled, theirs_compiled = torch.compile(ours, fullgraph=True), copy.deepcopy(theirs)
    theirs_compiled.forward = torch.compile(theirs_compiled.forward)
    prompt = torch.randint(vocab_size, (1, options.prompt))

    @torch.inference_mode()
    def reference(model: GPT2LMHeadModel) -> Tensor:
        return model.generate(
            prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=options.new,
            do_sample=False, pad_token_id=0,
        )  # fmt: skip

    continued = partial(generate, tokens=prompt, max_new_tokens=options.new)
    sides = {
        "minillm": partial(continued, ours),
        "minillm compiled": partial(continued, compiled),
        "transformers": partial(reference, theirs),
        "transformers compiled": partial(reference, theirs_compiled),
        "uncached": partial(continued, ours, cache=None),
        "uncached compiled": partial(continued, compiled, cache=None),
    }
    texts = [side() for side in sides.values()]  # warms up, too
    assert all(torch.equal(text, texts[0]) for text in texts), "the sides disagree"
    seconds = {name: [] for name in sides}
    for _ in range(options.rounds):
        for name, side in sides.items():
            seconds[name].append(timed(side)[1])
    speed = {name: options.new / statistics.median(times) for name, times in seconds.items()}
    size = sum(p.numel() for p in ours.parameters()) / 1e6
    print(
        f"{size:.1f}M parameters, {torch.get_num_threads()} threads, {options.new} tokens after "
        f"{options.prompt}: " + ", ".join(f"{name} {s:.0f} tok/s" for name, s in speed.items())
    )
    for fast, slow, bar in RATIOS:
        ratio = speed[fast] / speed[slow]
        print(f"ratio generate {size:.0f}M {fast} / {slow} {ratio:.1f}{bar and f' (bar {bar})'}")


if __name__ == "__main__":
    main()
