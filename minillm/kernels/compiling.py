"""Compile kernels for a GPU that is not there, and read what they use of it.

Triton's compiler and the assembler in its package need no GPU. Where kernels are interpreted, a
second process compiles them: it tells whether they compile at all for this or that generation, how
many registers a thread takes, what spills to memory, and how wide the loads are. Nothing is run::

    with use("interpret"), trace() as traffic:
        softmax(x)
    compile_for([(7, 5), (9, 0)], traffic.launches)
"""

import importlib
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

TYPES = {
    torch.float32: "*fp32", torch.float16: "*fp16", torch.bfloat16: "*bf16", torch.int64: "*i64",
    torch.int32: "*i32", torch.int8: "*i8", torch.uint8: "*u8", torch.bool: "*i1",
}  # fmt: skip
PROGRAM = "from minillm.kernels.compiling import _worker; _worker()"


@dataclass(frozen=True)
class Launch:
    """A kernel and the types it was launched with; what is constant is part of the code.

    `divisible` names the arguments known to be multiples of 16, which makes wide loads possible.
    `stages` is how many steps of a loop are loaded ahead, each into shared memory of its own.
    """

    module: str
    kernel: str
    signature: Mapping[str, str]
    constants: Mapping[str, Any]
    divisible: tuple[str, ...] = ()
    warps: int = 4
    stages: int = 3

    @classmethod
    def of(cls, fn: Any, names: list[str], args: tuple, kwargs: Mapping[str, Any]) -> "Launch":
        """The launch of `fn` with these arguments, specialized as Triton's own launcher would."""
        given = dict(zip(names, args, strict=False)) | dict(kwargs)
        signature, constants, divisible = {}, {}, []
        for name in names:
            value = given.get(name, 0)
            kind = _kind(value)
            constant = "constexpr" in str(fn.__annotations__.get(name, ""))
            if constant or value is None or (type(value) is int and value == 1):
                signature[name], constants[name] = "constexpr", value
                continue
            signature[name] = kind
            at = value.data_ptr() if isinstance(value, Tensor) else value
            if isinstance(at, int) and at % 16 == 0:
                divisible.append(name)
        options = int(kwargs.get("num_warps", cls.warps)), int(kwargs.get("num_stages", cls.stages))
        return cls(fn.__module__, fn.__name__, signature, constants, tuple(divisible), *options)

    def retyped(self, old: str, new: str) -> "Launch":
        """The same launch with pointers to another type: `retyped("fp32", "bf16")`."""
        changed = {n: f"*{new}" if t == f"*{old}" else t for n, t in self.signature.items()}
        return replace(self, signature=changed)


def _kind(value: Any) -> str:
    if isinstance(value, Tensor):
        return TYPES[value.dtype]
    if isinstance(value, bool):
        return "i1"
    if isinstance(value, int):
        return "i32" if -(2**31) <= value < 2**31 else "i64"
    return "fp32"


@dataclass(frozen=True)
class Compiled:
    """What a compiled kernel uses: registers a thread, bytes spilled a thread, shared bytes.

    `widest` is the widest load from memory in bytes a thread, `tensor_cores` whether any are used;
    `error` says why there is nothing, and is empty otherwise.
    """

    kernel: str
    registers: int = 0
    spilled: int = 0
    shared: int = 0
    widest: int = 0
    tensor_cores: bool = False
    error: str = ""


Capability = tuple[int, int]


def compile_for(
    capabilities: Iterable[Capability], launches: Iterable[Launch], *, timeout: float | int = 300
) -> dict[Capability, list[Compiled]]:
    """Compile each launch's kernel for each compute capability, all in one second process.

    ValueError where the compiler itself is missing or fails to start, with what it said.
    """
    wanted = list(capabilities)
    job = {"capabilities": wanted, "launches": [asdict(launch) for launch in launches]}
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {"TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": folder}
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM], input=json.dumps(job), env=environment,
            capture_output=True, text=True, timeout=timeout,
        )  # fmt: skip
    if done.returncode:
        raise ValueError(f"the compiler did not start: {done.stderr.strip()[-500:]}")
    found = [[Compiled(**one) for one in each] for each in json.loads(done.stdout.splitlines()[-1])]
    return dict(zip(wanted, found, strict=True))


def _worker() -> None:
    """In the second process: compile what stdin asks for, write what was found to stdout."""
    job = json.load(sys.stdin)
    launches = [Launch(**launch) for launch in job["launches"]]
    found = [
        [asdict(_compiled(launch, 10 * major + minor)) for launch in launches]
        for major, minor in job["capabilities"]
    ]
    print(json.dumps(found))


def _compiled(launch: Launch, capability: int) -> Compiled:
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    kernel = getattr(importlib.import_module(launch.module), launch.kernel)
    places = {name: i for i, name in enumerate(launch.signature)}
    attrs = {(places[name],): [["tt.divisibility", 16]] for name in launch.divisible}
    source = ASTSource(kernel, dict(launch.signature), dict(launch.constants), attrs)
    target = GPUTarget("cuda", capability, 32)
    options = {"num_warps": launch.warps, "num_stages": launch.stages}
    try:
        built = triton.compile(source, target=target, options=options)
    except Exception as error:
        cause = str(error.__cause__ or error).strip() or type(error).__name__
        return Compiled(launch.kernel, error=cause.splitlines()[-1][:200])
    registers, spilled = _resources(built.asm["cubin"])
    ptx = built.asm["ptx"]
    return Compiled(
        launch.kernel, registers, spilled, built.metadata.shared, _widest(ptx),
        bool(re.search(r"\b(mma|wgmma)\.", ptx)),
    )  # fmt: skip


def _widest(ptx: str) -> int:
    """Bytes of the widest load from global memory: ld.global.v4.b32 is 16."""
    loads = re.findall(r"ld\.global\S*?(?:\.v(\d))?\.[bfsu](\d+)", ptx)
    return max((int(n or 1) * int(bits) // 8 for n, bits in loads), default=0)


def _resources(cubin: bytes) -> tuple[int, int]:
    """Registers and bytes of stack of one thread, by the tool that comes with Triton."""
    from triton import knobs

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.cubin"
        path.write_bytes(cubin)
        tool = knobs.nvidia.cuobjdump.path
        said = subprocess.run([tool, "-res-usage", path], capture_output=True, text=True).stdout
    registers, stack = re.search(r"REG:(\d+)", said), re.search(r"STACK:(\d+)", said)
    return (int(registers[1]) if registers else 0), (int(stack[1]) if stack else 0)
