"""The kernels against PyTorch's on a CUDA device: `python gpu_kernels.py [--only attention]`.

Ours, PyTorch's operations one by one, `torch.compile`, PyTorch's two attention kernels, cuBLAS, and
Liger where it is installed, on the same random inputs in bfloat16, beside the copy and the matrix
product that the same run measured: what the device can do. Each side is checked against the first
in float32 before it is timed. The results are merged into `book/data/kernels-<device>.json`, from
which the book's page of benchmarks is made. `--smoke` runs every side once at tiny sizes, without a
GPU and without timing, so that a mistake shows before a device is rented.
"""

import argparse
import datetime
import json
import re
from pathlib import Path

import torch
from gpu_cases import GROUPS, Case
from gpu_timing import copy_bandwidth, matmul_rate, milliseconds, peak_bytes

from minillm.kernels import dispatch

DATA = Path(__file__).resolve().parents[2] / "book" / "data"


def main() -> None:
    """Run the chosen groups; store what was measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", choices=list(GROUPS), default=list(GROUPS))
    parser.add_argument("--smoke", action="store_true")
    options = parser.parse_args()
    if options.smoke:
        return smoke(options.only)
    if not torch.cuda.is_available():
        raise SystemExit("a CUDA device is needed, and torch sees none; --smoke runs without")
    ceilings = {"copy": copy_bandwidth(), "matmul": matmul_rate()}
    print(
        f"copy {ceilings['copy'] / 1e12:.2f} TB/s, matmul {ceilings['matmul'] / 1e12:.0f} TFLOP/s"
    )
    for group in options.only:
        for case in GROUPS[group](1.0, "cuda", torch.bfloat16):
            rows = measured(case)
            store(rows, ceilings)
            for row in rows:
                print(line(row, ceilings), flush=True)
        torch.cuda.empty_cache()


def smoke(groups: list[str]) -> None:
    """Every side of every case once, tiny, on the interpreter; forward and backward."""
    torch.manual_seed(0)
    for group in groups:
        for case in GROUPS[group](0.004, "cpu", torch.float32):
            with dispatch.use("interpret"):
                names = agree(case, skip=("compile",))
                if case.backward_bytes or case.backward_flops:
                    call, _ = backward(case, "minillm")
                    call()
            print(f"{case.kernel}, {case.setup}: {', '.join(names)} agree")


def agree(case: Case, skip: tuple[str, ...] = ()) -> list[str]:
    """Run every side; AssertionError unless all give what ours does."""
    results = {name: side(*case.inputs) for name, side in case.sides.items() if name not in skip}
    ours = results["minillm"]
    for name, other in results.items():
        pairs = zip(ours, other, strict=True) if isinstance(ours, tuple) else [(ours, other)]
        for one, two in pairs:
            error = (one.float() - two.float()).abs().max().item()
            bound = case.tolerance * max(two.float().abs().max().item(), 1e-3)
            assert error <= bound, f"{case.kernel}: minillm and {name} differ by {error:.2e}"
    return list(results)


def backward(case: Case, name: str) -> tuple:
    """A call that runs one side's backward pass again and again on one stored forward pass."""
    inputs = [x.detach().requires_grad_() for x in case.inputs]
    out = case.sides[name](*inputs)
    outs = out if isinstance(out, tuple) else (out,)
    grads = tuple(torch.randn_like(y) for y in outs)
    return lambda: torch.autograd.grad(outs, inputs, grads, retain_graph=True), inputs


def measured(case: Case) -> list[dict]:
    """One row for each side and direction; what a side cannot do is said in its row."""
    agree(case)
    rows = []
    for name, side in case.sides.items():
        directions = {"forward": lambda side=side: side(*case.inputs)}
        if case.backward_bytes or case.backward_flops:
            directions["backward"] = None
        for direction, call in directions.items():
            row = {"kernel": case.kernel, "setup": case.setup, "side": name, "pass": direction}
            first = direction == "forward"
            row["bytes"] = case.n_bytes if first else case.backward_bytes
            row["flops"] = case.flops if first else case.backward_flops
            try:
                call = call or backward(case, name)[0]
                row["ms"] = milliseconds(call)
                if case.memory and first:
                    row["peak_bytes"] = peak_bytes(lambda n=name: backward(case, n)[0]())
            except RuntimeError as error:
                row["missing"] = str(error).splitlines()[0][:120]
            rows.append(row)
    return rows


def store(rows: list[dict], ceilings: dict[str, float]) -> None:
    """Put rows in the device's file, in the place of older ones of the same comparison."""
    import triton

    device = torch.cuda.get_device_name()
    path = DATA / f"kernels-{re.sub('[^a-z0-9]+', '-', device.lower()).strip('-')}.json"
    old = json.loads(path.read_text("utf8"))["rows"] if path.exists() else []
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    versions = {"torch": torch.__version__, "triton": triton.__version__, "date": today}
    new = [{**row, **versions, **ceilings} for row in rows]
    keys = ("kernel", "setup", "side", "pass")
    fresh = {tuple(row[key] for key in keys) for row in new}
    kept = [row for row in old if tuple(row[key] for key in keys) not in fresh]
    data = {"device": device, "rows": kept + new}
    path.write_text(json.dumps(data, indent=1) + "\n", "utf8")


def line(row: dict, ceilings: dict[str, float]) -> str:
    """A result as text: time, rate, and the share of what a copy or a product reaches."""
    head = f"{row['kernel']:22} {row['setup']:28} {row['pass']:8} {row['side']:10}"
    if "missing" in row:
        return f"{head} not available: {row['missing']}"
    rate, unit, ceiling = (
        (row["flops"], "TFLOP/s", ceilings["matmul"])
        if row["flops"]
        else (row["bytes"], "TB/s", ceilings["copy"])
    )
    per_second = rate / row["ms"] * 1e3
    return f"{head} {row['ms']:8.3f} ms {per_second / 1e12:7.2f} {unit} {per_second / ceiling:5.0%}"


if __name__ == "__main__":
    main()
