from otter.test_files import test_case

OK_FORMAT = False

name = "q1_bytes"
points = 2

@test_case(points=None, hidden=False)
def test_four_operations(four_operations):
    assert isinstance(four_operations, int | float), 'four_operations is not a number yet'
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode

    class Traffic(TorchDispatchMode):
        moved = 0

        def __torch_dispatch__(self, op, types, args=(), kwargs=None):
            out = op(*args, **kwargs or {})
            tensors = [x for x in args if isinstance(x, torch.Tensor)]
            if out.untyped_storage().data_ptr() not in {x.untyped_storage().data_ptr() for x in tensors}:
                self.moved += sum((x.numel() * x.element_size() for x in (*tensors, out)))
            return out
    q, k, v = torch.zeros(3, 1024, 64, dtype=torch.float16)
    with Traffic() as counted:
        (q @ k.T * 0.125).softmax(-1) @ v
    large, small = (2 * 1024 * 1024, 2 * 1024 * 64)
    assert four_operations != 4 * small + large, 'the scores are written and read again by each operation, six times in all'
    assert four_operations != 4 * small + 4 * large, 'that leaves one operation out: product, scaling, softmax, product'
    assert four_operations != 6 * large, 'q, k, v and the output move too'
    assert four_operations != counted.moved // 2, 'that is the count of numbers; each has two bytes'
    assert four_operations != 2 * counted.moved, 'that is with four bytes a number; here they have two'
    assert four_operations == counted.moved, f'watched in PyTorch they move {counted.moved:,} bytes, not {four_operations:,}'

@test_case(points=None, hidden=False)
def test_flash(flash):
    assert isinstance(flash, int | float), 'flash is not a number yet'
    small, lse, tiles = (2 * 1024 * 64, 4 * 1024, range(0, 1024, 128))
    right = sum((2 * 128 * 64 + 2 * 2 * 1024 * 64 + 2 * 128 * 64 + 4 * 128 for _ in tiles))
    assert flash != 4 * small + lse, 'keys and values are read once by *each* of the 8 tiles of queries'
    assert flash != 2 * small + lse + 16 * 2 * small, 'the tiles of *queries* count, and there are 1024 / 128 of them'
    assert flash != 2 * small + lse + 8 * small, 'each program reads keys and values, two tensors'
    assert flash != right - lse, 'the log-sum-exp is missing: four bytes a query'
    assert flash != right - lse // 2, 'the log-sum-exp has four bytes a query, not two'
    assert flash != 8 * 4 * small + lse, 'a program reads and writes only its own queries and outputs, not all'
    assert flash == right, '8 programs: each its own queries, all keys, all values, its own outputs, 4 bytes a query'

@test_case(points=None, hidden=False)
def test_flash_causal(flash_causal):
    assert isinstance(flash_causal, int | float), 'flash_causal is not a number yet'
    small, lse = (2 * 1024 * 64, 4 * 1024)
    right = 2 * small + lse
    for first in range(0, 1024, 128):
        seen = sum((1 for key in range(1024) if key <= first + 127))
        right += 2 * 2 * 64 * seen
    full = 2 * small + lse + 16 * small
    assert flash_causal != full, 'that is without the mask'
    assert flash_causal != full // 2, 'queries and outputs are not halved, and the tiles on the diagonal are read whole'
    assert flash_causal != 2 * small + lse + 8 * small, 'not exactly half of the keys: the tile on the diagonal is read whole'
    assert flash_causal != right - 2 * 2 * 64 * 1024, 'the tile on the diagonal is seen in part, so it is read'
    assert flash_causal == right, 'the programs read 128, 256, … 1024 keys and as many values'

@test_case(points=None, hidden=False)
def test_kept(kept):
    assert isinstance(kept, int | float), 'kept is not a number yet'
    import torch
    sizes = [torch.zeros(1024, 64, dtype=torch.float16).nbytes] * 4 + [torch.zeros(1024).nbytes]
    right = sum(sizes)
    assert kept != right - sizes[0], 'the output is kept too: D is the sum of dO times O'
    assert kept != 4 * sizes[0], 'the log-sum-exp is missing: without it no weight can be made again'
    assert kept != right - 2 * 1024, 'the log-sum-exp has four bytes a query'
    assert kept < 2 * 1024 * 1024, 'no matrix of weights is kept: that is the point'
    assert kept == right, 'q, k, v and the output, and four bytes a query'

