"""Training throughput against GPT-2 of transformers, interleaved: `python bench_training.py`.

Both sides have the same sizes (about 12M parameters), the same random tokens, a fused AdamW,
clipping at 1 and equal precision. Only the ratios mean something, since the machine may be shared:
each round times one update of each side in turn, and the medians over the rounds are compared.
"""

import argparse
import statistics
import time
from dataclasses import replace
from functools import partial

import torch
from torch import nn
from torch.nn import functional as F
from transformers import GPT2Config, GPT2LMHeadModel

from minillm.data import TokenWindows
from minillm.models.gpt import GPT, GPTConfig
from minillm.nn.attention import scaled_dot_product_attention
from minillm.nn.ops import TORCH_OPS
from minillm.training import adamw, next_token_loss, train

VOCAB, SEQ_LEN, BATCH, D_MODEL, LAYERS, HEADS = 4096, 256, 4, 384, 6, 6


def ours(data, autocast, device, dtype):
    """An endless generator of our updates, exactly what a user runs."""
    ops = TORCH_OPS
    if device == "cpu" and dtype is torch.bfloat16:
        # PyTorch's fused attention is the slower one here: at 128 to 256 tokens its backward pass
        # takes 1.5 to 3 times as long as two matmuls and a softmax.
        ops = replace(ops, attention=scaled_dot_product_attention)
    model = GPT(GPTConfig(VOCAB, SEQ_LEN, D_MODEL, LAYERS, HEADS), ops=ops).to(device)
    loss_fn = partial(next_token_loss, cross_entropy=TORCH_OPS.cross_entropy)
    optimizer = adamw(model, 3e-4, fused=True)
    size = sum(p.numel() for p in model.parameters())
    options = {"steps": 10**9, "loss_fn": loss_fn, "autocast": autocast}
    return size, train(model, data, optimizer=optimizer, **options)


def theirs(data, autocast, device):
    """transformers' model in the loop most people write around it."""
    config = GPT2Config(
        vocab_size=VOCAB, n_positions=SEQ_LEN, n_embd=D_MODEL, n_layer=LAYERS, n_head=HEADS,
        resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, attn_implementation="sdpa",
        bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    model = GPT2LMHeadModel(config).to(device).train()
    size = sum(p.numel() for p in model.parameters())
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4, fused=True)

    def updates():
        for inputs, targets in data:
            inputs, targets = inputs.to(device), targets.to(device)
            optimizer.zero_grad(set_to_none=True)
            with autocast():
                logits = model(inputs, use_cache=False).logits
                loss = F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten())
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            yield loss.item()

    return size, updates()


def measure(rounds: int, dtype: torch.dtype | None, device: str) -> dict[str, float]:
    """Tokens per second of each contender, medians over interleaved rounds."""
    torch.manual_seed(0)
    tokens = torch.randint(VOCAB, (200_000,))
    data = TokenWindows(tokens, SEQ_LEN, BATCH)
    autocast = partial(torch.autocast, device, dtype or torch.bfloat16, enabled=dtype is not None)
    sides = {
        "minillm": ours(data, autocast, device, dtype),
        "transformers": theirs(data, autocast, device),
    }
    sizes = {name: size for name, (size, _) in sides.items()}
    assert len(set(sizes.values())) == 1, f"unequal sizes {sizes}"
    seconds = {name: [] for name in sides}
    for round_number in range(rounds + 2):
        for name, (_, updates) in sides.items():
            began = time.perf_counter()
            next(updates)
            if round_number >= 2:  # two to warm up
                seconds[name].append(time.perf_counter() - began)
    print(
        f"{sizes['minillm'] / 1e6:.1f}M parameters, {BATCH} x {SEQ_LEN} tokens, {dtype or 'fp32'}"
    )
    return {name: BATCH * SEQ_LEN / statistics.median(s) for name, s in seconds.items()}


def main() -> None:
    """Print tokens per second and the ratio, in float32 and in bfloat16 autocast."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    for dtype in (None, torch.bfloat16):
        speed = measure(arguments.rounds, dtype, arguments.device)
        for name, tokens_per_second in speed.items():
            print(f"  {name:13} {tokens_per_second:8.0f} tokens/s")
        print(f"  ratio         {speed['minillm'] / speed['transformers']:8.2f}")


if __name__ == "__main__":
    main()
