from otter.test_files import test_case

OK_FORMAT = False

name = "q6_block"
points = 3

@test_case(points=None, hidden=False)
def test_one_block(decode_q4_1):
    import struct
    import torch
    nibbles = [(7 * i + 3 + 5 * (i // 16)) % 16 for i in range(32)]
    data = struct.pack('<ee', 0.3125, -1.75) + bytes((nibbles[i] | nibbles[i + 16] << 4 for i in range(16)))
    raw = torch.tensor(list(data), dtype=torch.uint8)
    given = raw.clone()
    out = decode_q4_1(given)
    assert out is not None, 'decode_q4_1 returned nothing: is the `return` missing?'
    assert torch.equal(given, raw), 'your function changed its input: leave it as it is'
    assert tuple(out.shape) == (32,), f'one block has 32 weights in one axis, not {tuple(out.shape)}'
    q = torch.tensor(nibbles).float()
    low, high = (q[:16], q[16:])

    def is_(y):
        return (out - y).abs().max() < 1e-06
    pairs = torch.stack([low, high], 1).flatten()
    assert not is_(0.3125 * pairs - 1.75), 'byte i holds weights i and i + 16, not 2i and 2i + 1'
    assert not is_(0.3125 * torch.cat([high, low]) - 1.75), 'the low four bits are weights 0 to 15, the high ones 16 to 31'
    assert not is_(-1.75 * q + 0.3125), 'the step d comes first, then the minimum m'
    assert not is_(0.3125 * q), 'the minimum is missing: a weight is d q + m'
    assert not is_(0.3125 * (q - 8)), 'q - 8 is Q4_0; Q4_1 has a minimum instead: d q + m'
    assert not is_(0.3125 * q + 1.75), 'the minimum is added with its sign'
    assert not is_(0.3125 * (q - 1.75)), 'd multiplies q only: d q + m'
    right = [0.3125 * n - 1.75 for n in nibbles]
    gap = (out.double() - torch.tensor(right, dtype=torch.float64)).abs().max().item()
    assert gap < 1e-06, f'differs from d q + m, byte by byte, by {gap:.2g}'
    assert out.dtype == torch.float32, f'the weights should be float32, not {out.dtype}'

@test_case(points=None, hidden=False)
def test_many_blocks(decode_q4_1):
    import struct
    import torch
    torch.manual_seed(0)
    data, right = (b'', [])
    for d, m in ((0.001, 0.5), (3.0, -20.0), (0.0337, -0.25)):
        q = torch.randint(16, (32,)).tolist()
        data += struct.pack('<ee', d, m) + bytes((q[i] | q[i + 16] << 4 for i in range(16)))
        d, m = struct.unpack('<ee', data[-20:-16])
        right += [d * n + m for n in q]
    out = decode_q4_1(torch.tensor(list(data), dtype=torch.uint8))
    assert tuple(out.shape) == (96,), f'three blocks have 96 weights in one axis, not {tuple(out.shape)}'
    gap = (out.double() - torch.tensor(right, dtype=torch.float64)).abs()
    assert not gap[:32].max() < 1e-05 < gap[32:].max(), 'the first block is right, the others not: each has a step and a minimum of its own'
    assert gap.max() < 1e-05, f'off by up to {gap.max().item():.2g}: compute in float32, float16 rounds the weights'

@test_case(points=None, hidden=True)
def test_against_the_library(decode_q4_1):
    import torch
    from minillm.quantization.gguf_blocks import FORMATS, dequantize, quantize
    torch.manual_seed(1)
    kind = FORMATS['Q4_1']
    raw = quantize(torch.randn(7, 64), kind)
    right = dequantize(raw, kind, (7, 64)).flatten()
    gap = (decode_q4_1(raw) - right).abs().max().item()
    assert gap < 1e-06, f"differs from minillm's decoder by {gap:.2g} on fourteen blocks"

