"""Write the page of GPU benchmarks from the results that are stored in `book/data`."""

import json
from collections import defaultdict

from course import Course

HEAD = """# GPU benchmarks

<!-- Made by `make sync` from book/data/kernels-*.json; edit `book/tools/benchmarks.py` instead. -->
Each Triton kernel of the library against the same computation by PyTorch: its operations one by
one (*eager*), the same under `torch.compile`, and its own fused kernels where there are any. All
sides get the same random bfloat16 numbers and must agree before they are timed. Times are medians
over replays of a CUDA graph. Beside them stands what the device itself can do, measured in the
same run: for kernels that move numbers the bandwidth of a copy, for kernels that multiply the rate
of a large matrix product. A backward pass of attention counts 2.5 times the FLOPs of the forward
pass, which is what an implementation with five matrix products does, however many ours has.
"""
NONE = """
**No result is stored yet.** The kernels are tested in Triton's interpreter, which shows that their
numbers are right and says nothing about their speed. On a machine with a CUDA device, `make gpu`
tests them compiled, times them, and writes the file from which this page is made.
"""


def page(course: Course) -> str:
    """Return the page: a section for each device, or the sentence that none was measured."""
    files = sorted((course.root / "book" / "data").glob("kernels-*.json"))
    parts = [device(json.loads(path.read_text("utf8"))) for path in files]
    return HEAD + ("\n".join(parts) if parts else NONE)


def device(data: dict) -> str:
    """Return a device's section: what it can do, then one table for each kernel."""
    tables = defaultdict(list)
    for row in data["rows"]:
        tables[row["kernel"], row["setup"]].append(row)
    lines = [f"## {data['device']}", ""]
    for (kernel, setup), rows in tables.items():
        lines += table(kernel, setup, rows)
    return "\n".join(lines)


def table(kernel: str, setup: str, rows: list[dict]) -> list[str]:
    """Return one kernel's table, a bar for the share of what the device can do."""
    first = rows[0]
    said = f"Input {setup}; {first['date']}, PyTorch {first['torch']}, Triton {first['triton']}; "
    said += f"copy {first['copy'] / 1e12:.2f} TB/s, product {first['matmul'] / 1e12:.0f} TFLOP/s."
    head = ["pass", "side", "ms", "rate", "of the device", "time, ours = 1"]
    lines = [f"### {kernel}", "", said, "", f"| {' | '.join(head)} |"]
    lines += ["| :-- | :-- | --: | --: | :-- | --: |"]
    for direction in ("forward", "backward"):
        own = [row for row in rows if row["pass"] == direction]
        ours = next((row["ms"] for row in own if row["side"] == "minillm" and "ms" in row), None)
        lines += [f"| {direction} | {' | '.join(cells(row, ours))} |" for row in own]
    return [*lines, ""]


def cells(row: dict, ours: float | None) -> list[str]:
    """Return the cells behind the first: side, time, rate, share of the ceiling, ratio to ours."""
    if "missing" in row:
        return [row["side"], "", f"not available: {row['missing']}".replace("|", "/"), "", ""]
    work, unit, ceiling = (
        (row["flops"], "TFLOP/s", row["matmul"])
        if row["flops"]
        else (row["bytes"], "TB/s", row["copy"])
    )
    rate = work / row["ms"] * 1e3
    share = rate / ceiling
    bar = f'<span class="bar" style="width: {6 * min(share, 1):.1f}em"></span> {share:.0%}'
    ratio = "" if ours is None else f"{row['ms'] / ours:.2f}"
    memory = f", peak {row['peak_bytes'] / 1e9:.2f} GB" if "peak_bytes" in row else ""
    return [row["side"], f"{row['ms']:.3f}", f"{rate / 1e12:.2f} {unit}{memory}", bar, ratio]
