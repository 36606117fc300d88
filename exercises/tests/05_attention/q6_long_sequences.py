from otter.test_files import test_case

OK_FORMAT = False

name = "q6_long_sequences"
points = 4

@test_case(points=None, hidden=False)
def test_equals_torch(long_attention):
    import torch
    torch.manual_seed(0)
    for t, chunk in [(12, 4), (13, 4), (5, 8), (7, 1)]:
        q, k, v = (torch.randn(2, 3, t, 5, dtype=torch.float64) for _ in range(3))
        given = (q.clone(), k.clone(), v.clone())
        out = long_attention(q, k, v, chunk)
        assert all(map(torch.equal, given, (q, k, v))), 'you changed q, k or v in place: the caller still needs them; compute a new tensor'
        assert tuple(out.shape) == (2, 3, t, 5), f't={t}, chunk={chunk}: the last, shorter piece is lost or doubled; the shape is {tuple(out.shape)}'
        right = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        first = (out[:, :, :chunk] - right[:, :, :chunk]).abs().max().item()
        assert first < 1e-09, f't={t}, chunk={chunk}: the first piece differs from causal attention by {first:.2g}: scale, mask, softmax over keys?'
        gap = (out - right).abs().max().item()
        assert gap < 1e-09, f't={t}, chunk={chunk}: later pieces differ by {gap:.2g}: they must see all earlier keys, and row i of a piece is token start + i'

@test_case(points=None, hidden=False)
def test_no_large_tensor(long_attention):
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode
    import weakref
    t, chunk, heads = (256, 16, 2)
    sizes, alive, peak = ([], [], [0])

    class Watch(TorchDispatchMode):

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            out = function(*args, **kwargs or {})
            for x in out if isinstance(out, (tuple, list)) else [out]:
                if isinstance(x, torch.Tensor):
                    sizes.append((x.untyped_storage().nbytes() // x.element_size(), tuple(x.shape), str(function)))
                    alive.append(weakref.ref(x))
            alive[:] = [ref for ref in alive if ref() is not None]
            held = {x.untyped_storage().data_ptr(): x.numel() for x in (ref() for ref in alive) if x is not None}
            peak[0] = max(peak[0], sum(held.values()))
            return out
    torch.manual_seed(1)
    q, k, v = (torch.randn(1, heads, t, 4) for _ in range(3))
    with Watch():
        long_attention(q, k, v, chunk)
    assert sizes, 'no tensor was made by torch: compute the result with torch'
    assert not any(('scaled_dot_product' in name for _, _, name in sizes)), 'write it yourself: do not call scaled_dot_product_attention'
    largest, shape, name = max(sizes)
    assert largest <= heads * chunk * t, f'you make a full table, or more of it than `chunk` rows: a tensor of shape {shape}, where {heads} heads x {chunk} rows x {t} keys are allowed. Cut the queries into pieces before the product, and make the mask for a piece only (torch calls the step {name})'
    assert peak[0] <= 6 * heads * chunk * t, f'your tensors together hold {peak[0]} numbers at a time, {peak[0] / (heads * chunk * t):.0f} pieces of the table: keep only the result of a piece, not its weights'

