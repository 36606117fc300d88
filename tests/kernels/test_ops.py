"""A model given the kernels trains as the same model with the references."""

import pytest
import torch

from minillm.kernels import dispatch
from minillm.kernels.ops import TRITON_OPS
from minillm.models.gpt import gpt2
from minillm.models.llama import llama
from minillm.nn import Ops

SIZES = {"vocab_size": 37, "max_seq_len": 16, "d_model": 16, "n_layers": 2, "n_heads": 2}
MODELS = {
    "gpt2": lambda ops: gpt2(**SIZES, ops=ops),
    "llama": lambda ops: llama(**SIZES, n_kv_heads=1, d_ff=24, ops=ops),
}


def losses(build, ops, device, steps=4):
    torch.manual_seed(0)
    model = build(ops).to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    tokens = torch.randint(37, (2, 13), generator=torch.Generator().manual_seed(1)).to(device)
    values = []
    for _ in range(steps):
        loss = ops.cross_entropy(model(tokens)[:, :-1].contiguous(), tokens[:, 1:].contiguous())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        values.append(loss.item())
    return values


@pytest.mark.parametrize("name", MODELS)
def test_the_same_losses_as_the_reference(name, device, monkeypatch):
    ours = losses(MODELS[name], TRITON_OPS, device)
    with dispatch.use("torch"):
        reference = losses(MODELS[name], Ops(), device)
    assert ours == pytest.approx(reference, rel=1e-4)
    assert reference[-1] < reference[0] - 0.1, "nothing was learned, so nothing was compared"


def test_the_backend_is_chosen_by_device_and_can_be_overridden(device):
    x = torch.randn(2, 3)
    with dispatch.use(None):
        assert dispatch.backend(x) == "torch"
        assert dispatch.backend(x.double()) == "torch"
        with dispatch.use("torch"):
            assert dispatch.backend(x) == "torch"
    with dispatch.use("triton"), pytest.raises(ValueError, match="cannot serve this call"):
        dispatch.backend(x)
    with pytest.raises(ValueError, match="unknown backend 'cuda'"), dispatch.use("cuda"):
        pass


@pytest.mark.skipif(torch.cuda.is_available(), reason="the interpreter runs on a CPU")
def test_the_interpreter_refuses_what_it_computes_wrongly():
    with dispatch.use("interpret"):
        with pytest.raises(ValueError, match="bfloat16"):
            dispatch.backend(torch.zeros(2, dtype=torch.bfloat16))
        assert dispatch.backend(torch.zeros(2)) == "interpret"


def test_sizes_of_blocks_and_warps():
    assert [dispatch.power_of_two(n) for n in (1, 2, 3, 64, 65)] == [1, 2, 4, 64, 128]
    assert [dispatch.warps(block) for block in (32, 4096, 1 << 16)] == [4, 8, 16]
