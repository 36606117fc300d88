"""The page of GPU benchmarks says what was measured, where and when, or that nothing was."""

import json

import benchmarks
import pytest
from course import Course

ROW = {
    "kernel": "softmax", "setup": "8 × 4", "pass": "forward", "flops": 0, "bytes": 4_000_000,
    "torch": "2.13.0", "triton": "3.7.1", "date": "2026-11-22", "copy": 2e12, "matmul": 8e14,
}  # fmt: skip


@pytest.fixture
def page_of(tmp_path):
    """The page made from these files of results."""

    def make(**files):
        folder = tmp_path / "book" / "data"
        folder.mkdir(parents=True)
        (tmp_path / "_config.yml").write_text("repository:\n  url: https://example.org/course\n")
        for name, data in files.items():
            (folder / f"kernels-{name}.json").write_text(json.dumps(data), "utf8")
        return benchmarks.page(Course(tmp_path))

    return make


def test_without_results_it_says_that_nothing_was_measured(page_of):
    text = page_of()
    assert "**No result is stored yet.**" in text and "| ms |" not in text


def test_device_date_versions_rates_and_ratios_are_there(page_of):
    rows = [
        {**ROW, "side": "minillm", "ms": 0.004},
        {**ROW, "side": "eager", "ms": 0.010},
        {**ROW, "side": "compile", "missing": "no compiler | here"},
        {**ROW, "side": "minillm", "pass": "backward", "flops": 4e9, "ms": 0.01},
    ]
    text = page_of(h100={"device": "NVIDIA H100 80GB HBM3", "rows": rows})
    assert "## NVIDIA H100 80GB HBM3" in text and "No result" not in text
    assert "Input 8 × 4; 2026-11-22, PyTorch 2.13.0, Triton 3.7.1; copy 2.00 TB/s" in text
    bar = '<span class="bar" style="width: 3.0em"></span> 50%'
    assert f"| forward | minillm | 0.004 | 1.00 TB/s | {bar} | 1.00 |" in text
    assert "| forward | eager | 0.010 | 0.40 TB/s |" in text and "| 2.50 |" in text
    assert "not available: no compiler / here" in text
    assert "| backward | minillm | 0.010 | 400.00 TFLOP/s |" in text
