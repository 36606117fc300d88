import pytest
import torch

from minillm.kernels.paged_attention import paged_decode, paged_decode_reference


def pages(data, device, lengths, size, g, p):
    """Pages in a random order, with rubbish on those that nobody owns."""
    most = max(-(-n // size) for n in lengths) + 1
    used = [-(-n // size) for n in lengths]
    order = torch.randperm(sum(used) + 3, generator=torch.Generator().manual_seed(5))
    table = torch.full((len(lengths), most), int(order[-1]))  # a page that must not matter
    start = 0
    for i, n in enumerate(used):
        table[i, :n] = order[start : start + n]
        start += n
    k, v = (data(len(order), size, g, p, grad=False) for _ in range(2))
    k[order[-1]], v[order[-1]] = 1e4, 1e4
    return k, v, table.to(device), torch.tensor(lengths, device=device)


@pytest.mark.parametrize(
    ("lengths", "size", "h", "g", "p"),
    [
        ((1,), 1, 1, 1, 8),
        ((5, 19, 1), 2, 4, 2, 7),
        ((33, 16, 7), 16, 6, 1, 16),
        ((3, 40), 16, 3, 3, 5),
    ],
)
@pytest.mark.parametrize(("splits", "block"), [(1, 16), (4, 16), (7, 32)])
def test_every_sequence_equals_its_own_attention(
    data, check, device, lengths, size, h, g, p, splits, block
):
    k, v, table, length = pages(data, device, lengths, size, g, p)
    q = data(len(lengths), h, p, grad=False)
    ours = paged_decode(q, k, v, table, length, splits=splits, block=block)
    exact = paged_decode_reference(*(x.double() for x in (q, k, v)), table, length)
    check(ours, exact)
    assert torch.equal(ours, paged_decode(q, k, v, table, length, splits=splits, block=block))


def test_an_empty_sequence_gives_zero(data, device):
    k, v, table, length = pages(data, device, (4, 6), 2, 1, 8)
    length[0] = 0
    out = paged_decode(data(2, 2, 8, grad=False), k, v, table, length, splits=3, block=16)
    assert (out[0] == 0).all() and out[1].isfinite().all()


@pytest.mark.parametrize("wrong", ["one key too many", "pages in order", "no rescale of splits"])
def test_wrong_versions_are_seen(data, check, device, wrong):
    k, v, table, length = pages(data, device, (21, 9), 4, 2, 8)
    q = data(2, 4, 8, grad=False)
    ours = paged_decode(q, k, v, table, length, splits=2, block=16)
    wide = [x.double() for x in (q, k, v)]
    if wrong == "one key too many":
        other = paged_decode_reference(*wide, table, length + 1)
    elif wrong == "pages in order":
        other = paged_decode_reference(*wide, table.sort(dim=1).values, length)
    else:
        halves = [
            paged_decode_reference(*wide, table, length.clamp(max=12)),
            paged_decode_reference(*wide, table, length),
        ]
        other = sum(halves) / 2
    with pytest.raises(AssertionError):
        check(ours, other)


def test_mistakes_are_named(data, device):
    k, v, table, length = pages(data, device, (4, 6), 2, 1, 8)
    q = data(2, 2, 8, grad=False)
    if device == "cuda":
        pytest.skip("there nobody waits for the lengths")
    with pytest.raises(ValueError, match="a length of 90 needs more than 4 pages of 2"):
        paged_decode(q, k, v, table, length + 84)
