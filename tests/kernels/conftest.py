"""Kernels run compiled where there is a GPU, and interpreted on a CPU everywhere else."""

import warnings

import pytest
import torch

from minillm.kernels import dispatch

CUDA = torch.cuda.is_available()

DTYPES = [torch.float32, torch.float16] + ([torch.bfloat16] if CUDA else [])
# what one rounding to the type may cost, relative to the largest value: KERNELS' floors
FLOOR = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}


@pytest.fixture(autouse=True)
def backend():
    """Every call goes to the kernel; nothing falls back in silence."""
    if dispatch.triton is None:
        pytest.skip("Triton has no wheel for this system")
    with dispatch.use("triton" if CUDA else "interpret"), warnings.catch_warnings():
        # NumPy warns where a kernel means to overflow: exp of a huge number is ∞, its inverse 0
        warnings.simplefilter("ignore", RuntimeWarning)
        yield


@pytest.fixture
def device():
    return "cuda" if CUDA else "cpu"


@pytest.fixture(params=DTYPES, ids=str)
def dtype(request):
    return request.param


@pytest.fixture
def check(dtype):
    """Compare a kernel with float64 and with the same formula in PyTorch at the same type."""

    def compare(ours, exact, naive=None, floor=None):
        assert ours.shape == exact.shape
        if not exact.numel():
            return
        error = (ours.double() - exact).abs().max().item()
        bound = (floor or FLOOR[dtype]) * max(exact.abs().max().item(), 1.0)
        if naive is not None:
            bound = max(bound, 2 * (naive.double() - exact).abs().max().item())
        assert error <= bound, f"error {error:.2e} above {bound:.2e}"

    return compare


@pytest.fixture
def data(dtype, device):
    """Random tensors of the type under test: data(2, 3) with noise of a fixed seed."""
    generator = torch.Generator().manual_seed(0)

    def make(*shape, scale=1.0, grad=True):
        x = torch.randn(*shape, generator=generator) * scale
        return x.to(device, dtype).requires_grad_(grad)

    return make


def gradients(function, *inputs):
    """Value and gradients of Σ function(*inputs) ⊙ fixed weights, for any number of outputs."""
    inputs = [x.detach().clone().requires_grad_(x.is_floating_point()) for x in inputs]
    out = function(*inputs)
    outs = out if isinstance(out, tuple) else (out,)
    generator = torch.Generator().manual_seed(1)
    total = 0.0
    for y in outs:
        weight = torch.randn(y.shape, generator=generator, dtype=torch.float64)
        total = total + (y.double() * weight.to(y.device)).sum()
    total.backward()
    return [y.detach() for y in outs] + [x.grad for x in inputs if x.is_floating_point()]


@pytest.fixture
def agree(check):
    """Value and every gradient of a kernel against the reference in float64."""

    def compare(kernel, reference, *inputs, floor=None):
        ours = gradients(kernel, *inputs)
        exact = gradients(reference, *(x.double() if x.is_floating_point() else x for x in inputs))
        with dispatch.use("torch"):
            naive = gradients(reference, *inputs)
        again = gradients(kernel, *inputs)
        for one, two, three, four in zip(ours, exact, naive, again, strict=True):
            check(one, two, three, floor)
            assert torch.equal(one, four), "two runs differ"

    return compare
