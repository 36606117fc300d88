from otter.test_files import test_case

OK_FORMAT = False

name = "q1_count"
points = 2

@test_case(points=None, hidden=False)
def test_d_ff(d_ff):
    assert d_ff != 2048, 'that is 4 d; a gated layer has three matrices and takes 8/3 d to cost the same'
    assert d_ff not in (1365, 1366), 'rounded up to a multiple of 256, as hardware likes it'
    assert d_ff != 1280, 'that is rounded down; the width is rounded up to the next multiple of 256'
    assert d_ff == 1536, '8/3 of 512 is 1365.33; the next multiple of 256 above it is wanted'

@test_case(points=None, hidden=False)
def test_n_parameters(n_parameters):
    from torch import nn
    layer = [nn.Linear(512, n, bias=False) for n in (512, 128, 128, 512)]
    layer += [nn.Linear(*shape, bias=False) for shape in ((512, 1536), (512, 1536), (1536, 512))]
    layer += [nn.RMSNorm(512), nn.RMSNorm(512)]
    block = sum((p.numel() for part in layer for p in part.parameters()))
    right = 6 * block + 512 + 1000 * 512
    missing = right - n_parameters
    assert missing != 6 * 512 * 1536, 'the gated layer has three matrices: two up, one down'
    assert missing != -6 * 2 * 512 * 384, 'keys and values have 2 heads of 64, not 8: their projections are 512 x 128'
    assert missing != -1000 * 512, 'the output layer is the token table; it is counted once'
    assert missing != 1000 * 512, 'the token table is missing'
    assert missing != 512, 'there is one more norm after the last block'
    assert missing not in (6 * 1024, 6 * 1024 + 512), 'each norm has a scale of 512 numbers'
    assert missing != -(6 * 1024 + 512), 'RMSNorm has a scale and no shift'
    assert n_parameters == right, f'one block has {block} parameters here: compare part by part'

