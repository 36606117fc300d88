from otter.test_files import test_case

OK_FORMAT = False

name = "q1_count"
points = 2

@test_case(points=None, hidden=False)
def test_total(total):
    from torch import nn
    block = [nn.Linear(256, 256, bias=False) for _ in range(4)] + [nn.RMSNorm(256), nn.RMSNorm(256)]
    block += [nn.Linear(256, 128, bias=False) for _ in range(3 * 16)] + [nn.Linear(256, 16, bias=False)]
    one = sum((p.numel() for part in block for p in part.parameters()))
    right = 4 * one + 256 + 2 * 1000 * 256
    missing = right - total
    expert = 3 * 256 * 128
    assert missing != 4 * 16 * 256, 'the router is missing: one row of 256 numbers for each expert, in every block'
    assert missing != 4 * 16 * expert // 3, 'a gated layer has three matrices: two up, one down'
    assert missing != 1000 * 256, 'the output layer is a matrix of its own here, beside the token table'
    assert missing != 4 * 14 * expert, 'those are the parameters a token uses: all 16 experts count in the total'
    assert missing != 256, 'there is one more norm after the last block'
    assert missing not in (4 * 512, 4 * 512 + 256), 'each norm has a scale of 256 numbers'
    assert missing != -15 * 4 * 4 * 256 ** 2, 'attention is there once a block, not once for each expert'
    assert total == right, f'one block has {one} parameters here: compare part by part'

@test_case(points=None, hidden=False)
def test_used(total, used):
    from torch import nn
    expert = sum((p.numel() for _ in range(3) for p in nn.Linear(256, 128, bias=False).parameters()))
    assert used != total, 'a token uses 2 of the 16 experts'
    block = 4 * 256 ** 2 + 16 * expert + 16 * 256 + 2 * 256
    right = 4 * block + 256 + 2 * 1000 * 256 - 4 * 14 * expert
    missing = right - used
    assert used != total // 8, 'only the experts are used in part; attention, norms and tables are used whole'
    assert missing not in (4 * 14 * 256, 4 * 16 * 256), 'the whole router is used: it needs all logits to choose'
    assert missing != 4 * expert, 'two experts are used, not one'
    assert missing != 4 * 12 * expert * -1, '2 experts of 16 are used, so 14 are idle: you have subtracted 2'
    assert missing not in (256000, 512000), 'count the whole token table and the whole output layer in `used`, too'
    assert missing != -3 * 14 * expert, '14 experts are idle in each of the 4 blocks'
    assert used == right, 'subtract 14 idle experts in each block from the total'

