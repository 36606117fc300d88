"""The block formats of GGUF, bit by bit: 32 weights share a scale d and perhaps a minimum m.

    Q4_0  d │ 32 × 4 bits            w = d (q − 8)        18 bytes, 4.5 bits a weight
    Q4_1  d │ m │ 32 × 4 bits        w = d q + m          20 bytes, 5
    Q5_0  d │ 32 high bits │ 32 × 4  w = d (q − 16)       22 bytes, 5.5
    Q5_1  d │ m │ 32 high bits │ …   w = d q + m          24 bytes, 6
    Q8_0  d │ 32 × 8 bits            w = d q, q signed    34 bytes, 8.5

d and m are float16. A byte holds weight i in its low nibble and weight i + 16 in its high one; bit
i of the high bits belongs to weight i (`ggml-quants.c` and `ggml-common.h` in ggml). F32, F16 and
BF16 are blocks of one weight.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

BLOCK = 32


@dataclass(frozen=True)
class BlockFormat:
    """`code` stands in the file; a block of `n_values` weights takes `n_bytes`."""

    name: str
    code: int
    n_values: int
    n_bytes: int
    decode: Callable[[Tensor], Tensor]
    encode: Callable[[Tensor], Tensor]

    def size_of(self, shape: Sequence[int]) -> int:
        """How many bytes a tensor takes; ValueError unless its rows are whole blocks."""
        if len(shape) and shape[-1] % self.n_values:
            raise ValueError(
                f"rows of {shape[-1]} weights cannot be cut into {self.name}'s blocks of "
                f"{self.n_values}; use F16 or F32 for this tensor"
            )
        n = 1
        for length in shape:
            n *= length
        return n // self.n_values * self.n_bytes


def dequantize(
    data: UInt8[Tensor, " n"], kind: BlockFormat, shape: Sequence[int]
) -> Float[Tensor, "..."]:
    """Return the float32 weights that `data`, whole blocks of format `kind`, stand for."""
    size = kind.size_of(shape)
    if len(data) != size:
        raise ValueError(f"{kind.name} of shape {tuple(shape)} takes {size} bytes, not {len(data)}")
    return kind.decode(data.view(-1, kind.n_bytes)).reshape(*shape)


def quantize(weights: Float[Tensor, "..."], kind: BlockFormat) -> UInt8[Tensor, " n"]:
    """Return the bytes of `weights` in format `kind`, each weight rounded as ggml rounds it.

    ValueError for weights that are not finite, or too large for a float16 scale.
    """
    kind.size_of(weights.shape)
    if not bool(torch.isfinite(weights).all()):
        raise ValueError("weights hold NaN or infinity, which no block can say; mend them first")
    return kind.encode(weights.detach().float().reshape(-1, kind.n_values)).flatten()


def _plain(dtype: torch.dtype) -> tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]:
    """Decode and encode numbers that stand alone."""
    return (
        lambda blocks: _number(blocks, dtype),
        lambda weights: _in_range(weights, weights.to(dtype)).view(torch.uint8),
    )


def _number(data: UInt8[Tensor, "n size"], dtype: torch.dtype = torch.float16) -> Tensor:
    """One float per row of bytes, as float32."""
    return data.contiguous().view(dtype).float()


def _scale(numbers: Float[Tensor, "n 1"]) -> UInt8[Tensor, "n 2"]:
    return _in_range(numbers, numbers.half()).view(torch.uint8)


def _in_range(exact: Tensor, rounded: Tensor) -> Tensor:
    if bool(torch.isinf(rounded).any()):
        raise ValueError(
            f"{exact.abs().max().item():.3g} is beyond {rounded.dtype}'s range; use a wider format"
        )
    return rounded


def _decode_nibbles(
    blocks: UInt8[Tensor, "n size"], *, bits: int, minimum: bool
) -> Float[Tensor, "n 32"]:
    """d (q − 2^(bits−1)), or d q + m; the nibbles are the last 16 bytes."""
    low = blocks[:, -BLOCK // 2 :]
    q = torch.cat([low & 15, low >> 4], dim=1)
    if bits == 5:
        high = blocks[:, -BLOCK // 2 - 4 : -BLOCK // 2, None] >> torch.arange(8).byte() & 1
        q = q | high.flatten(1) << 4
    d = _number(blocks[:, :2])
    if minimum:
        return d * q.float() + _number(blocks[:, 2:4])
    return d * (q.float() - 2 ** (bits - 1))


def _encode_nibbles(
    weights: Float[Tensor, "n 32"], *, bits: int, minimum: bool
) -> UInt8[Tensor, "n size"]:
    """q = w / d rounded; d spreads the block's range, or puts its largest weight at q = 0.

    Without a minimum, d has the opposite sign of the weight that is largest without its sign: q = 0
    stands for −2^(bits−1) d, while the most on the other side is one step less.
    """
    if minimum:
        low = weights.amin(dim=1, keepdim=True)
        d = (weights.amax(dim=1, keepdim=True) - low) / (2**bits - 1)
        q = (weights - low) * _inverse(d) + 0.5
        head = [_scale(d), _scale(low)]
    else:
        largest = weights.gather(1, weights.abs().argmax(dim=1, keepdim=True))
        d = largest / -(2 ** (bits - 1))
        q = weights * _inverse(d) + (2 ** (bits - 1) + 0.5)
        head = [_scale(d)]
    q = q.clamp(0, 2**bits - 1).byte()  # truncated, so + 0.5 rounds
    if bits == 5:
        places = 1 << torch.arange(8)
        head.append(((q >> 4).view(-1, 4, 8) * places).sum(dim=2).byte())
    first, second = q.split(BLOCK // 2, dim=1)
    return torch.cat([*head, first & 15 | second << 4], dim=1)


def _decode_bytes(blocks: UInt8[Tensor, "n 34"]) -> Float[Tensor, "n 32"]:
    """d q."""
    return _number(blocks[:, :2]) * blocks[:, 2:].contiguous().view(torch.int8).float()


def _encode_bytes(weights: Float[Tensor, "n 32"]) -> UInt8[Tensor, "n 34"]:
    """d = max |w| / 127, q = w / d rounded, halves away from 0."""
    d = weights.abs().amax(dim=1, keepdim=True) / 127
    size = (weights * _inverse(d)).abs()
    whole = size.floor()
    q = (whole + (2 * (size - whole)).floor()) * weights.sign() * d.sign()
    return torch.cat([_scale(d), q.to(torch.int8).view(torch.uint8)], dim=1)


def _inverse(d: Float[Tensor, "n 1"]) -> Float[Tensor, "n 1"]:
    """1 / d, and 0 for a block of zeros."""
    return torch.where(d == 0, 0, 1 / d)


def _nibbles(name: str, code: int, bits: int, minimum: bool) -> BlockFormat:
    options = {"bits": bits, "minimum": minimum}
    size = 2 + 2 * minimum + 4 * (bits == 5) + BLOCK // 2
    decode, encode = partial(_decode_nibbles, **options), partial(_encode_nibbles, **options)
    return BlockFormat(name, code, BLOCK, size, decode, encode)


FORMATS: dict[str, BlockFormat] = {
    kind.name: kind
    for kind in (
        BlockFormat("F32", 0, 1, 4, *_plain(torch.float32)),
        BlockFormat("F16", 1, 1, 2, *_plain(torch.float16)),
        _nibbles("Q4_0", 2, bits=4, minimum=False),
        _nibbles("Q4_1", 3, bits=4, minimum=True),
        _nibbles("Q5_0", 6, bits=5, minimum=False),
        _nibbles("Q5_1", 7, bits=5, minimum=True),
        BlockFormat("Q8_0", 8, BLOCK, 34, _decode_bytes, _encode_bytes),
        BlockFormat("BF16", 30, 1, 2, *_plain(torch.bfloat16)),
    )
}
BY_CODE: dict[int, BlockFormat] = {kind.code: kind for kind in FORMATS.values()}


def format_named(name: str) -> BlockFormat:
    """The format of a name such as "Q8_0"; ValueError listing those known."""
    if not isinstance(name, str) or name not in FORMATS:
        raise ValueError(f"unknown format {name!r:.40}; choose from {', '.join(FORMATS)}")
    return FORMATS[name]
