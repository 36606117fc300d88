import pytest
import torch

from minillm.kernels import dispatch
from minillm.kernels.flash_attention import flash_attention, flash_attention_varlen
from minillm.nn import scaled_dot_product_attention


def reference(causal=False, window=None, scale=None):
    def attend(q, k, v):
        t, s = q.shape[2], k.shape[2]
        gap = torch.arange(s - t, s, device=q.device)[:, None] - torch.arange(s, device=q.device)
        mask = None if window is None else gap < window
        return scaled_dot_product_attention(q, k, v, mask, causal=causal, scale=scale)

    return attend


CASES = {
    "one key": (1, 1, 1, 1, 1, 8, False, None),
    "odd sizes": (2, 3, 3, 7, 7, 5, False, None),
    "many keys": (1, 2, 1, 3, 37, 16, False, None),
    "causal": (1, 2, 2, 33, 33, 8, True, None),
    "causal, grouped, odd": (2, 4, 2, 19, 19, 11, True, None),
    "causal with earlier keys": (1, 2, 1, 5, 40, 8, True, None),
    "causal, more queries than keys": (1, 2, 2, 24, 9, 8, True, None),
    "window": (1, 2, 1, 37, 37, 8, True, 9),
    "window of one": (1, 1, 1, 18, 18, 8, True, 1),
    "window with earlier keys": (1, 2, 1, 20, 45, 8, True, 17),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("tile", [(16, 16), (32, 16)], ids=str)
def test_value_and_gradients(agree, data, case, tile):
    b, h, g, t, s, p, causal, window = CASES[case]
    agree(
        lambda q, k, v: flash_attention(q, k, v, causal=causal, window=window, tile=tile),
        reference(causal, window),
        data(b, h, t, p),
        data(b, g, s, p),
        data(b, g, s, p),
    )


def test_scale_and_huge_scores(data, check):
    q, k, v = (data(1, 2, 20, 8, scale=30.0, grad=False) for _ in range(3))
    ours = flash_attention(q, k, v, causal=True, scale=1.0, tile=(16, 16))
    check(ours, reference(True, scale=1.0)(q.double(), k.double(), v.double()))
    assert ours.isfinite().all()


def test_queries_without_a_key_give_zero_and_no_gradient(data):
    q, k, v = data(1, 1, 24, 8), data(1, 1, 9, 8), data(1, 1, 9, 8)
    out = flash_attention(q, k, v, causal=True, tile=(16, 16))
    out.float().square().sum().backward()
    assert (out[:, :, :15] == 0).all() and (q.grad[:, :, :15] == 0).all()
    assert (out[:, :, 15:] != 0).any() and q.grad.isfinite().all()


def test_strided_inputs_as_a_model_makes_them(data, check):
    q, k, v = (data(2, 17, 3, 8, grad=False).transpose(1, 2) for _ in range(3))
    ours = flash_attention(q, k, v, causal=True, tile=(16, 16))
    check(ours, reference(True)(q.double(), k.double(), v.double()))


@pytest.mark.parametrize(("causal", "window"), [(False, None), (True, None), (True, 5)])
def test_packed_sequences_equal_each_alone(agree, data, device, causal, window):
    lengths = [(3, 3), (17, 17), (1, 6), (20, 20)]
    starts = [torch.tensor([0, *n]).cumsum(0).to(device) for n in zip(*lengths, strict=True)]

    def alone(q, k, v):
        parts, (a, c) = [], (0, 0)
        for n, m in lengths:
            one = (q[a : a + n], k[c : c + m], v[c : c + m])
            out = reference(causal, window)(*(x.transpose(0, 1)[None] for x in one))
            parts.append(out[0].transpose(0, 1))
            a, c = a + n, c + m
        return torch.cat(parts)

    def packed(q, k, v):
        return flash_attention_varlen(
            q, k, v, *starts, longest=(20, 20), causal=causal, window=window, tile=(16, 16)
        )

    agree(packed, alone, data(41, 4, 8), data(46, 2, 8), data(46, 2, 8))


def test_without_triton_the_same_functions_answer(data, device, check):
    q, k, v = (data(1, 2, 12, 8, grad=False).float() for _ in range(3))
    starts = torch.tensor([0, 5, 12], device=device)
    flat = [x[0].transpose(0, 1) for x in (q, k, v)]
    options = {"longest": (7, 7), "causal": True, "window": 3, "tile": (16, 16)}
    one = flash_attention(q, k, v, causal=True, window=3, tile=(16, 16))
    many = flash_attention_varlen(*flat, starts, starts, **options)
    with dispatch.use("torch"):
        torch.testing.assert_close(flash_attention(q, k, v, causal=True, window=3), one)
        torch.testing.assert_close(flash_attention_varlen(*flat, starts, starts, **options), many)


def test_masks_go_to_the_reference_and_mistakes_are_named(data, check):
    q, k, v = (data(2, 2, 9, 8, grad=False) for _ in range(3))
    mask = torch.ones(2, 1, 1, 9, dtype=torch.bool, device=q.device)
    mask[0, ..., :3] = False
    with dispatch.use(None):
        masked = flash_attention(q, k, v, mask, causal=True)
    expected = scaled_dot_product_attention(*(x.double() for x in (q, k, v)), mask, causal=True)
    check(masked, expected)
    with pytest.raises(ValueError, match="window 4"):
        flash_attention(q, k, v, window=4)
    starts = torch.tensor([0], device=q.device)
    with pytest.raises(ValueError, match="one start a sequence"):
        flash_attention_varlen(q[0], k[0], v[0], starts, starts, longest=(2, 2))


@pytest.mark.parametrize(
    "wrong", ["top-left causal", "window one too wide", "scale by p", "tile instead of repeat"]
)
def test_wrong_versions_are_seen(data, check, wrong):
    q, k, v = data(1, 4, 9, 8), data(1, 2, 20, 8), data(1, 2, 20, 8)
    ours = flash_attention(q, k, v, causal=True, window=6, tile=(16, 16))
    wide = [x.double() for x in (q, k, v)]
    check(ours, reference(True, 6)(*wide))
    if wrong == "top-left causal":
        gap = torch.arange(9, device=q.device)[:, None] - torch.arange(20, device=q.device)
        other = scaled_dot_product_attention(*wide, (gap >= 0) & (gap < 6))
    elif wrong == "window one too wide":
        other = reference(True, 7)(*wide)
    elif wrong == "scale by p":
        other = reference(True, 6, scale=1 / 8)(*wide)
    else:
        other = reference(True, 6)(wide[0], *(x.repeat(1, 2, 1, 1) for x in wide[1:]))
    with pytest.raises(AssertionError):
        check(ours, other)
