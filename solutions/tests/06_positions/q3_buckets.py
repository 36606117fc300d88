from otter.test_files import test_case

OK_FORMAT = False

name = "q3_buckets"
points = 3

@test_case(points=None, hidden=False)
def test_near(bucket):
    import torch
    found = torch.as_tensor(bucket(torch.arange(16), 32, 128))
    assert tuple(found.shape) == (16,), 'one bucket for each distance, in the same shape'
    assert not found.is_floating_point(), 'buckets are whole numbers: they index a table'
    assert found.tolist() != [n // 2 for n in range(16)], 'each near distance has a bucket of its own'
    assert found.tolist() == list(range(16)), 'distances 0 ... 15 have the buckets 0 ... 15 of 32'

@test_case(points=None, hidden=False)
def test_far(bucket):
    import torch
    ago = torch.tensor([16, 17, 30, 31, 64, 100, 127, 128, 129, 1000, 10 ** 6])
    found = torch.as_tensor(bucket(ago, 32, 128)).tolist()
    assert max(found) <= 31, f'bucket {max(found)} does not exist: 32 buckets are 0 ... 31'
    assert found[-1] == 31, 'everything beyond `far` is in the last bucket, 31'
    assert found[0] == 16, f'the first shared bucket is 16, not {found[0]}'
    assert found[2:4] != [21, 22] and found[4] != 27, 'round down, not to the nearest'
    assert found == sorted(found), 'farther keys never have a smaller bucket'
    assert found == [16, 16, 20, 21, 26, 30, 31, 31, 31, 31, 31], f'16, 17, 30, 31, 64, 100, 127, ... tokens ago gave {found}: natural logarithms of ago/16 and 128/16, their ratio times 16'

@test_case(points=None, hidden=False)
def test_other_sizes(bucket):
    import torch
    ago = torch.tensor([0, 7, 9, 12, 20, 30, 50, 63, 500])
    found = torch.as_tensor(bucket(ago, 16, 64)).tolist()
    as_32 = [0, 7, 9, 12, 17, 20, 24, 26, 31]
    assert found != as_32 and max(found) <= 15, '16 buckets were asked for, 0 ... 15: are `n` and `far` used, not 32 and 128?'
    assert found == [0, 7, 8, 9, 11, 13, 15, 15, 15], f'n = 16, far = 64: 0, 7, 9, 12, 20, 30, 50, 63, 500 tokens ago gave {found}: are `n` and `far` both used?'

@test_case(points=None, hidden=True)
def test_oracle(bucket):
    import torch
    from minillm.nn import t5_buckets
    ago = torch.arange(600).view(2, 300)
    for n, far in ((32, 128), (8, 20), (6, 50), (64, 512)):
        right = t5_buckets(-ago, bidirectional=False, n_buckets=n, max_distance=far)
        found = torch.as_tensor(bucket(ago, n, far))
        assert found.shape == right.shape, 'the result must have the shape of `ago`'
        wrong = (found != right).sum().item()
        assert wrong == 0, f"{wrong} of 600 distances are in another bucket than T5's, for n = {n} and far = {far}"

