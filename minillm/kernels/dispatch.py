"""Which code serves a call: a Triton kernel, the same kernel interpreted on a CPU, or PyTorch.

    backend    where                                     what it is for
    triton     CUDA, Linux, compute capability ≥ 7.5     speed
    interpret  a CPU, when asked for                     tests: the kernel's own lines, in NumPy
    torch      everywhere else                           the readable reference, or PyTorch's kernel

Kernels that multiply matrices (`dot=True`) and those that read bfloat16 need capability 8.0: on a
T4 (7.5) they are left to PyTorch. `with use("torch"):` overrides the choice.
"""

import importlib
import inspect
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

BACKENDS = ("triton", "interpret", "torch")
_override: ContextVar[str | None] = ContextVar("minillm_kernels_backend", default=None)

if not torch.cuda.is_available():  # Triton reads this when it is imported and kernels are defined
    os.environ.setdefault("TRITON_INTERPRET", "1")


def _optional(name: str) -> Any:
    """A module, or None where it is not installed."""
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


triton = _optional("triton")
# without it kernels are defined all the same, but never called
tl = _optional("triton.language") or SimpleNamespace(constexpr=Any)
# asked of Triton itself: whoever imported it first, without the variable, has had it compiled
INTERPRETED = type(getattr(tl, "sum", None)).__name__ == "InterpretedFunction"


def jit(kernel: Callable[..., Any]) -> Any:
    """`triton.jit`, or the function as it is where there is no Triton."""
    # unwrapped: Triton reads the source, and a checker of types around it would hide its globals
    return kernel if triton is None else triton.jit(inspect.unwrap(kernel))


@contextmanager
def use(backend: str | None) -> Iterator[None]:
    """Inside the block, serve every call by this backend; None goes back to choosing."""
    if backend is not None and backend not in BACKENDS:
        raise ValueError(f"unknown backend {backend!r}; choose from {', '.join(BACKENDS)} or None")
    token = _override.set(backend)
    try:
        yield
    finally:
        _override.reset(token)


def backend(x: Tensor, *, dot: bool = False, beyond: str = "") -> str:
    """The backend for a call on `x`: what `use` says, otherwise Triton wherever it can run.

    `beyond` names what the call asks for and the kernel does not do, such as "a mask"; empty if
    nothing. ValueError where an override cannot be obeyed, with the reason.
    """
    wanted, missing = _override.get(), _missing(x, dot)
    if beyond and wanted in ("triton", "interpret"):
        raise ValueError(f"the kernel has no way to serve {beyond}: leave it to use(None)")
    if beyond:
        return "torch"
    if wanted == "triton" and missing:
        raise ValueError(f"the triton backend cannot serve this call: {missing}")
    if wanted == "interpret" and (triton is None or not INTERPRETED or x.is_cuda):
        raise ValueError(
            "the interpreter needs Triton, a tensor on the CPU, and TRITON_INTERPRET=1 set before "
            "Triton is first imported: import minillm.kernels before transformers, or set the "
            "variable outside Python"
        )
    if wanted == "interpret" and x.dtype not in (torch.float32, torch.float16):
        raise ValueError(
            f"the interpreter computes wrongly with {x.dtype}; test it with float32 or float16"
        )
    return wanted or ("torch" if missing else "triton")


def _missing(x: Tensor, dot: bool) -> str:
    """Why Triton cannot serve a call on `x`; empty if it can."""
    if x.dtype not in (torch.float32, torch.float16, torch.bfloat16):
        return f"the kernels compute in float32 and take no {x.dtype}"
    if triton is None:
        return "Triton is not installed (pip install 'minillm[gpu]', Linux only)"
    if not x.is_cuda:
        return f"the tensor is on {x.device}, and Triton compiles for CUDA devices"
    if INTERPRETED:
        return "TRITON_INTERPRET=1 was set when Triton was imported: unset it and start again"
    capability = torch.cuda.get_device_capability(x.device)
    needed = (8, 0) if dot or x.dtype == torch.bfloat16 else (7, 5)
    if capability < needed:
        return f"compute capability {capability} is below {needed}"
    return ""


def power_of_two(n: int) -> int:
    """The smallest power of two that is at least `n`: blocks have such lengths."""
    return 1 << max(n - 1, 0).bit_length()


def warps(block: int) -> int:
    """Warps of a program that holds `block` numbers of a row: 16 a thread, but 4 to 16 warps."""
    return min(max(block // 512, 4), 16)


def n_programs(device: torch.device, most: int) -> int:
    """Programs that fill the device twice, at most `most`; four in the interpreter."""
    if device.type != "cuda":
        return min(most, 4)
    return min(most, 2 * torch.cuda.get_device_properties(device).multi_processor_count)
