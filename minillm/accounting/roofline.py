"""How long a task must take on a GPU at least, and how full the GPU is, from published numbers.

    time ≥ max(bytes / bandwidth, FLOPs / rate)        intensity = FLOPs / bytes
    attainable rate = min(rate, intensity · bandwidth)         ridge = rate / bandwidth

The two bounds drawn over the intensity are the roofline (Williams, Waterman and Patterson 2009).
Occupancy is the share of the warps that a multiprocessor can hold which a kernel's use of
registers and shared memory leaves room for. Nothing here is measured.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

REGISTERS, PARTITIONS, UNIT = 65_536, 4, 256  # of a multiprocessor; a warp gets multiples of UNIT
MOST_REGISTERS = 255  # of one thread


@dataclass(frozen=True)
class Device:
    """What NVIDIA publishes of a GPU: bytes, bytes a second, and dense FLOPs a second by type.

    `sms` multiprocessors, each with room for `warps` warps in at most `blocks` blocks, and with
    `shared` bytes of shared memory. "fp16" and "bf16" are the rates of tensor cores, "fp32" that
    of ordinary ones.
    """

    name: str
    capability: tuple[int, int]
    sms: int
    warps: int
    blocks: int
    shared: int
    cache: int
    memory: int
    bandwidth: float
    rates: Mapping[str, float]

    def rate(self, kind: str = "fp16") -> float:
        """FLOPs a second with numbers of this type; ValueError where the GPU has no such units."""
        if kind not in self.rates:
            raise ValueError(
                f"{self.name} has no rate for {kind!r}; choose {', '.join(self.rates)}"
            )
        return self.rates[kind]


def _rates(fp32: float, fp16: float, bf16: float | None = None) -> Mapping[str, float]:
    found = {"fp32": fp32, "fp16": fp16}
    return MappingProxyType(found if bf16 is None else found | {"bf16": bf16})


# NVIDIA: T4 product brief and Turing whitepaper (2018); A100 data sheet (2021) and Ampere
# whitepaper (2020); H100 data sheet and Hopper whitepaper (2022). Limits of a multiprocessor: CUDA
# programming guide, technical specifications by compute capability. Rates without sparsity.
T4 = Device(
    "T4", (7, 5), 40, 32, 16, 64 << 10, 4 << 20, 16 * 10**9, 320e9, _rates(8.1e12, 65e12)
)  # fmt: skip
A100 = Device(
    "A100", (8, 0), 108, 64, 32, 164 << 10, 40 << 20, 80 * 10**9, 2039e9,
    _rates(19.5e12, 312e12, 312e12),
)  # fmt: skip
H100 = Device(
    "H100", (9, 0), 132, 64, 32, 228 << 10, 50 << 20, 80 * 10**9, 3350e9,
    _rates(67e12, 989e12, 989e12),
)  # fmt: skip
DEVICES = (T4, A100, H100)


def ridge(device: Device, kind: str = "fp16") -> float:
    """FLOPs for each byte of memory traffic from which on arithmetic is the limit."""
    return device.rate(kind) / device.bandwidth


def attainable(device: Device, intensity: float | int, kind: str = "fp16") -> float:
    """FLOPs a second at this many FLOPs a byte, at most."""
    if intensity < 0:
        raise ValueError(f"intensity is {intensity}; give FLOPs divided by bytes, at least 0")
    return min(device.rate(kind), intensity * device.bandwidth)


def least_seconds(
    device: Device, n_bytes: float | int, flops: float | int = 0, kind: str = "fp16"
) -> float:
    """Seconds below which no implementation that moves these bytes can come."""
    if n_bytes < 0 or flops < 0:
        raise ValueError(f"{n_bytes} bytes and {flops} FLOPs: both must be at least 0")
    return max(n_bytes / device.bandwidth, flops / device.rate(kind))


@dataclass(frozen=True)
class Occupancy:
    """Blocks and warps that one multiprocessor holds at a time, and what holds it back."""

    blocks: int
    warps: int
    share: float
    limit: str


def occupancy(device: Device, warps: int, registers: int, shared: int = 0) -> Occupancy:
    """How many blocks of `warps` warps fit, given registers a thread and shared bytes a block.

    Registers are handed out to a warp in units of 256, from the quarter of the multiprocessor
    that runs it. What the driver keeps of shared memory (1 KB a block since Ampere) is left out.
    """
    if not 1 <= warps <= 32:
        raise ValueError(f"a block has 1 to 32 warps, not {warps}")
    if not 1 <= registers <= MOST_REGISTERS:
        raise ValueError(f"a thread has 1 to {MOST_REGISTERS} registers, not {registers}")
    if not 0 <= shared <= device.shared:
        raise ValueError(f"{shared} bytes of shared memory; {device.name} has {device.shared}")
    each = -(-registers * 32 // UNIT) * UNIT
    room = {
        "warps": device.warps // warps,
        "blocks": device.blocks,
        "registers": PARTITIONS * (REGISTERS // PARTITIONS // each) // warps,
    }
    if shared:
        room["shared memory"] = device.shared // shared
    limit = min(room, key=lambda name: room[name])
    blocks = room[limit]
    return Occupancy(blocks, blocks * warps, blocks * warps / device.warps, limit)
