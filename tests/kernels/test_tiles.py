import torch

from minillm.kernels.dispatch import jit, tl
from minillm.kernels.tiles import keep, take, visible


@jit
def _masked_copy(x_ptr, y_ptr, seen_ptr, n, p, t, s, window, P: tl.constexpr, N: tl.constexpr):
    rows = tl.arange(0, N)
    keep(y_ptr, take(x_ptr, rows, p, n, p, P), rows, p, n, p, P)
    seen = visible(rows, rows, t, s, True, window).to(tl.int32)
    tl.store(seen_ptr + rows[:, None] * N + rows[None], seen)


def test_tiles_stay_inside_and_the_mask_is_aligned_to_the_bottom_right(device):
    x = torch.arange(15.0, device=device).view(5, 3)
    y = torch.full((8, 3), -1.0, device=device)
    seen = torch.zeros(16, 16, dtype=torch.int32, device=device)
    _masked_copy[(1,)](x, y, seen, 5, 3, 4, 6, 3, P=4, N=16)
    assert torch.equal(y[:5], x) and (y[5:] == -1).all()
    gap = (6 - 4 + torch.arange(16))[:, None] - torch.arange(16)
    inside = (torch.arange(16) < 4)[:, None] & (torch.arange(16) < 6)
    assert torch.equal(seen.bool().cpu(), inside & (gap >= 0) & (gap < 3))
