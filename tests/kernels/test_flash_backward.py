import torch

from minillm.kernels import flash_attention as module
from minillm.kernels.flash_backward import backward_keys, backward_queries


def test_one_launch_for_keys_and_one_for_queries(data, monkeypatch):
    """Two passes, no atomics: each gradient is written by exactly one kernel."""
    launched = []

    class Counted:
        def __init__(self, kernel, name):
            self.kernel, self.name = kernel, name

        def __getitem__(self, grid):
            launched.append((self.name, grid))
            return self.kernel[grid]

    monkeypatch.setattr(module, "backward_keys", Counted(backward_keys, "keys"))
    monkeypatch.setattr(module, "backward_queries", Counted(backward_queries, "queries"))
    q, k, v = data(1, 4, 20, 8), data(1, 2, 40, 8), data(1, 2, 40, 8)
    out = module.flash_attention(q, k, v, causal=True, tile=(16, 16))
    out.float().sum().backward()
    assert launched == [("keys", (3, 2, 1)), ("queries", (2, 4, 1))]
    assert all(x.grad is not None and x.grad.isfinite().all() for x in (q, k, v))
    assert torch.equal(
        v.grad.float().sum((0, 2, 3)) > 0, torch.ones(2, dtype=torch.bool).to(v.device)
    )
