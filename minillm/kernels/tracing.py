"""Count the bytes that kernels and PyTorch's operations move, and catch what races and strays.

Triton's interpreter runs the programs of a launch one after the other on plain addresses. So it
never shows a race between programs, and a read outside of a tensor returns whatever lies there.
Inside `with trace() as traffic:` every access is looked at first:

    traffic.requested   bytes that lanes asked for, each time they asked
    traffic.distinct    bytes at different addresses, per launch: what memory must deliver at least
    traffic.sectors     pieces of 32 bytes touched by groups of 32 lanes: what a GPU fetches

`eager_bytes` counts the same for PyTorch: the bytes that operations read and write one by one.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from minillm.kernels import dispatch
from minillm.kernels.compiling import Launch

LANES, SECTOR = 32, 32  # lanes of a warp; bytes of a sector


class BadAccess(ValueError):
    """A kernel read or wrote outside of its tensors, or two of its programs met at one address."""


@dataclass
class Traffic:
    """What launches moved, in bytes; how many programs ran, with how many atomic additions.

    `launches` are the launches themselves, for `compiling.compile_for`.
    """

    loaded: int = 0
    stored: int = 0
    distinct: int = 0
    sectors: int = 0
    atomics: int = 0
    programs: int = 0
    launches: list["Launch"] = field(default_factory=list)

    @property
    def requested(self) -> int:
        """Bytes that lanes loaded and stored, repeats counted."""
        return self.loaded + self.stored

    @property
    def coalesced(self) -> float:
        """The share of the sectors' bytes that some lane wanted (1 at best, without repeats)."""
        return self.requested / (SECTOR * self.sectors) if self.sectors else 1.0


@dataclass
class _Accesses:
    """The accesses of one launch: addresses, bytes each, and the program they came from."""

    extents: list[tuple[int, int]]
    reads: list[tuple[np.ndarray, int, int]] = field(default_factory=list)
    writes: list[tuple[np.ndarray, int, int]] = field(default_factory=list)
    atomics: list[tuple[np.ndarray, int, int]] = field(default_factory=list)
    strays: list[str] = field(default_factory=list)

    def inside(self, at: np.ndarray, size: int) -> np.ndarray:
        """Which addresses lie in one of the tensors that the launch was given."""
        found = np.zeros(at.shape, dtype=bool)
        for low, high in self.extents:
            found |= (at >= low) & (at + size <= high)
        return found

    def check(self) -> None:
        """BadAccess for the first stray access, else for the first race."""
        if self.strays:
            raise BadAccess(self.strays[0])
        written = _owners(self.writes + self.atomics)
        for kind, accesses in (("writes", self.writes), ("reads", self.reads)):
            _meet(*_owners(accesses), *written, kind)


def _owners(accesses: list[tuple[np.ndarray, int, int]]) -> tuple[np.ndarray, np.ndarray]:
    """Each address and each program that used it, once."""
    if not accesses:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    at = np.concatenate([a for a, _, _ in accesses]).astype(np.int64)
    by = np.concatenate([np.full(len(a), program) for a, _, program in accesses])
    pairs = np.unique(np.stack([at, by]), axis=1)
    return pairs[0], pairs[1]


def _meet(at: np.ndarray, by: np.ndarray, written: np.ndarray, writer: np.ndarray, kind: str):
    """BadAccess where a program uses an address that another program writes."""
    if not len(written):
        return
    first, last = np.searchsorted(written, at), np.searchsorted(written, at, side="right") - 1
    there = first <= last
    for end in (first, last):  # addresses are sorted, and so are the programs of each address
        other = writer[np.minimum(end, len(writer) - 1)]
        raced = np.flatnonzero(there & (other != by))
        if len(raced):
            i = raced[0]
            raise BadAccess(
                f"a race: program {by[i]} {kind} a number that program {other[i]} writes too; on a "
                "GPU they run in any order, so give every number one writer, or use tl.atomic_add"
            )


def _extent(x: Tensor) -> tuple[int, int]:
    reach = sum((n - 1) * abs(s) for n, s in zip(x.shape, x.stride(), strict=True))
    size = x.element_size() * (1 + reach) if x.numel() else 0
    return x.data_ptr(), x.data_ptr() + size


def _sectors(at: np.ndarray, wanted: np.ndarray) -> int:
    """Sectors that groups of 32 neighboring lanes touch."""
    at, wanted = at.ravel() // SECTOR, wanted.ravel()
    groups = range(0, len(at), LANES)
    return sum(len(np.unique(at[i : i + LANES][wanted[i : i + LANES]])) for i in groups)


class _Tracer:
    """Stands in for the interpreter's memory operations, and counts before it lets them go on."""

    def __init__(self, builder: Any, traffic: Traffic) -> None:
        self.traffic, self.launch = traffic, _Accesses([])
        self.load, self.store = builder.create_masked_load, builder.create_masked_store
        self.atomic = builder.create_atomic_rmw

    def note(self, builder: Any, pointers: Any, mask: Any, kind: str) -> Any:
        """Count an access; return the mask without the lanes that would leave the tensors."""
        at, size = pointers.data.astype(np.int64), pointers.get_element_ty().primitive_bitwidth // 8
        wanted = np.broadcast_to(mask.data, at.shape).astype(bool)
        fits = self.launch.inside(at, size)
        x, y, z = builder.grid_idx
        program = x + builder.grid_dim[0] * (y + builder.grid_dim[1] * z)
        if (strays := int((wanted & ~fits).sum())) and not self.launch.strays:
            self.launch.strays.append(
                f"program {program} {kind} {strays} number{'s' * (strays > 1)} outside of its "
                "tensors: is a mask missing, or one too wide?"
            )
        wanted = wanted & fits
        getattr(self.launch, kind).append((at[wanted], size, program))
        moved, traffic = int(wanted.sum()) * size, self.traffic
        traffic.loaded += moved if kind != "writes" else 0
        traffic.stored += moved if kind != "reads" else 0
        traffic.sectors += _sectors(at, wanted)
        traffic.atomics += int(wanted.sum()) if kind == "atomics" else 0
        return type(mask)(wanted, mask.dtype)

    def patches(self, executor: Any) -> dict[str, Callable[..., Any]]:
        """What to put in the interpreter's places."""
        load, store, atomic, call, tracer = (
            self.load, self.store, self.atomic, executor.__call__, self,
        )  # fmt: skip

        def create_masked_load(builder, pointers, mask, *rest):
            mask = tracer.note(builder, pointers, mask, "reads")
            return load(builder, pointers, mask, *rest)

        def create_masked_store(builder, pointers, value, mask, *rest):
            mask = tracer.note(builder, pointers, mask, "writes")
            return store(builder, pointers, value, mask, *rest)

        def create_atomic_rmw(builder, operation, pointers, value, mask, *rest):
            mask = tracer.note(builder, pointers, mask, "atomics")
            return atomic(builder, operation, pointers, value, mask, *rest)

        def __call__(grid, *args, **kwargs):
            tensors = [a for a in (*args, *kwargs.values()) if isinstance(a, Tensor)]
            tracer.launch = _Accesses([_extent(x) for x in tensors])
            tracer.traffic.launches.append(Launch.of(grid.fn, grid.arg_names, args, kwargs))
            result = call(grid, *args, **kwargs)
            tracer.finish(grid.grid)
            return result

        return {
            "create_masked_load": create_masked_load, "create_masked_store": create_masked_store,
            "create_atomic_rmw": create_atomic_rmw, "__call__": __call__,
        }  # fmt: skip

    def finish(self, grid: Any) -> None:
        """Add up what needs the whole launch, and look for races."""
        launch, traffic = self.launch, self.traffic
        if not callable(grid):
            traffic.programs += int(np.prod(grid))
        for accesses in (launch.reads + launch.atomics, launch.writes + launch.atomics):
            for size in {size for _, size, _ in accesses}:
                at = [a for a, s, _ in accesses if s == size]
                traffic.distinct += size * len(np.unique(np.concatenate(at)))
        launch.check()


@contextmanager
def trace() -> Iterator[Traffic]:
    """Count the bytes of every kernel launched inside; BadAccess for strays and races.

    Kernels run in the interpreter, on tensors of the CPU: ValueError where they would be compiled.
    """
    if dispatch.triton is None or not dispatch.INTERPRETED:
        raise ValueError(
            "only interpreted kernels can be traced: install Triton, and set TRITON_INTERPRET=1 "
            "before it is first imported"
        )
    from triton.runtime import interpreter

    traffic = Traffic()
    builder, executor = interpreter.InterpreterBuilder, interpreter.GridExecutor
    patches = _Tracer(builder, traffic).patches(executor)
    call = patches.pop("__call__")
    with mock.patch.multiple(builder, **patches), mock.patch.object(executor, "__call__", call):
        yield traffic


class _EagerBytes(TorchDispatchMode):
    """Adds up what every operation reads and writes; views and empty tensors move nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.total, self.names = 0, []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        name = func.name().split("::")[1].split(".")[0]
        if not (func.is_view or name.startswith(("empty", "new_empty", "detach", "_unsafe_view"))):
            inputs = () if "_like" in name or name.startswith("new_") else (args, kwargs)
            read = {id(x): x for x in tree_leaves(inputs) if isinstance(x, Tensor)}
            wrote = {id(x): x for x in tree_leaves(out) if isinstance(x, Tensor)}
            moved = [_stored_bytes(x) for x in (*read.values(), *wrote.values())]
            self.total += sum(moved)
            self.names.append(name)
        return out


def _stored_bytes(x: Tensor) -> int:
    """Bytes of a tensor's different numbers: an axis that repeats (stride 0) counts once."""
    sizes = [n for n, s in zip(x.shape, x.stride(), strict=True) if s != 0 or n == 0]
    return x.element_size() * int(np.prod(sizes, dtype=np.int64))


def eager_bytes(function: Callable[..., Any], *inputs: Any) -> tuple[int, list[str]]:
    """Bytes that PyTorch's operations read and write in `function(*inputs)`, and their names.

    Each operation reads all its inputs from memory and writes its outputs there, which is what
    happens on a GPU with tensors larger than its cache.
    """
    with torch.autograd.set_multithreading_enabled(False), _EagerBytes() as counted:
        function(*inputs)
    return counted.total, counted.names
