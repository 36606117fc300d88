"""What a CUDA device does must be what the CPU does; `make gpu` runs these."""

from functools import partial

import pytest
import torch

from minillm.data import TokenWindows
from minillm.generation import generate
from minillm.models.gpt import gpt_tiny
from minillm.nn.ops import TORCH_OPS, Ops
from minillm.training import adamw, train

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
OPS = pytest.mark.parametrize("ops", [Ops(), TORCH_OPS], ids=["reference", "torch"])


def model(ops):
    torch.manual_seed(0)
    return gpt_tiny(61, ops=ops, max_seq_len=32).eval()


@OPS
def test_logits_and_gradients_equal_the_cpus(ops):
    found = {}
    tokens = torch.randint(61, (3, 19), generator=torch.Generator().manual_seed(1))
    for device in ("cpu", "cuda"):
        one = model(ops).double().to(device)
        logits = one(tokens.to(device))
        logits.square().sum().backward()
        found[device] = [logits.detach().cpu(), *(p.grad.cpu() for p in one.parameters())]
    for cpu, cuda in zip(found["cpu"], found["cuda"], strict=True):
        torch.testing.assert_close(cuda, cpu, atol=1e-9, rtol=1e-9)


@OPS
def test_greedy_decoding_with_a_cache_equals_the_cpus(ops):
    start = torch.tensor([[1, 2, 3], [4, 5, 6]])
    one = model(ops).double()
    cpu = generate(one, start, max_new_tokens=20)
    cuda = generate(one.cuda(), start.cuda(), max_new_tokens=20)
    assert torch.equal(cuda.cpu(), cpu)


def test_training_with_the_fused_optimizer_follows_the_cpu():
    ids = torch.randint(61, (4000,), generator=torch.Generator().manual_seed(2))
    losses = {}
    for device in ("cpu", "cuda"):
        one = model(TORCH_OPS).double().to(device)
        optimizer = adamw(one, 1e-3)
        data = TokenWindows(ids, seq_len=16, batch_size=4, seed=0)
        losses[device] = [r.loss for r in train(one, data, optimizer=optimizer, steps=10)]
    assert losses["cuda"] == pytest.approx(losses["cpu"], rel=1e-9)


def test_bfloat16_autocast_trains():
    ids = torch.arange(4000) % 61
    one = model(TORCH_OPS).cuda()
    data = TokenWindows(ids, seq_len=16, batch_size=8, seed=0)
    cast = partial(torch.autocast, "cuda", torch.bfloat16)
    records = list(train(one, data, optimizer=adamw(one, 3e-3), steps=60, autocast=cast))
    assert records[-1].loss < records[0].loss / 2
