"""Time on a CUDA device: events around replays of a graph, and the device's own ceilings."""

import statistics
from collections.abc import Callable

import torch

REPEATS, ROUNDS = 10, 7


def milliseconds(function: Callable[[], object]) -> float:
    """Median time of one call: `REPEATS` calls captured in a CUDA graph, replayed `ROUNDS` times.

    Without a graph the host's few microseconds a launch would be timed with short kernels. What
    cannot be captured (it waits for the device) is launched call by call.
    """
    for _ in range(3):
        function()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(graph):
            for _ in range(REPEATS):
                function()
        run = graph.replay
    except RuntimeError:
        torch.cuda.synchronize()

        def run() -> None:
            for _ in range(REPEATS):
                function()

    run()
    times = []
    for _ in range(ROUNDS):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        run()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end) / REPEATS)
    return statistics.median(times)


def copy_bandwidth(n_bytes: int = 1 << 31) -> float:
    """Bytes a second, read and written, of a copy far larger than the second-level cache."""
    source = torch.randint(256, (n_bytes,), dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    return 2 * n_bytes / milliseconds(lambda: target.copy_(source)) * 1e3


def matmul_rate(n: int = 8192, dtype: torch.dtype = torch.bfloat16) -> float:
    """FLOP a second of an n × n product on random numbers (zeros would draw less power)."""
    a, b = (torch.randn(n, n, device="cuda", dtype=dtype) for _ in range(2))
    return 2 * n**3 / milliseconds(lambda: a @ b) * 1e3


def peak_bytes(function: Callable[[], object]) -> int:
    """Memory that a call allocates at its highest, beyond what was there before."""
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    function()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before
