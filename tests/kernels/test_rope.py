import pytest
import torch

from minillm.kernels import rope
from minillm.nn import rotary


def angles(data, b, t, f):
    a = data(b, t, f, grad=False).double()
    return a.cos().to(data(1).dtype), a.sin().to(data(1).dtype)


@pytest.mark.parametrize("name", ["rotate_halves", "rotate_pairs"])
@pytest.mark.parametrize(
    ("b", "h", "t", "p", "f", "rows"),
    [(2, 3, 5, 8, 4, 2), (2, 9, 3, 14, 7, 1), (1, 1, 7, 10, 2, 1), (2, 2, 1, 123, 30, 1)],
)
def test_value_and_gradient(agree, data, name, b, h, t, p, f, rows):
    cos, sin = angles(data, rows, t, f)
    kernel, reference = getattr(rope, name), getattr(rotary, name)
    agree(
        lambda x: kernel(x, cos, sin),
        lambda x: reference(x, cos.to(x.dtype), sin.to(x.dtype)),
        data(b, h, t, p),
    )


def test_strided_input_keeps_its_values(data, check):
    cos, sin = angles(data, 1, 5, 4)
    x = data(2, 5, 3, 8, grad=False).transpose(1, 2)
    y = rope.rotate_halves(x, cos, sin)
    check(y, rotary.rotate_halves(x.double(), cos.double(), sin.double()))


def test_turning_back_restores(data, check):
    cos, sin = angles(data, 1, 5, 4)
    x = data(2, 3, 5, 8, grad=False)
    back = rope.rotate_pairs(rope.rotate_pairs(x, cos, sin), cos, -sin)
    check(back, x.double(), floor=5e-3 if x.dtype != torch.float32 else None)


def test_layouts_are_told_apart_and_shapes_checked(data):
    cos, sin = angles(data, 1, 5, 4)
    x = data(2, 3, 5, 8, grad=False)
    assert (rope.rotate_pairs(x, cos, sin) - rope.rotate_halves(x, cos, sin)).abs().max() > 0.1
    with pytest.raises(ValueError, match="4 pairs need 8 numbers, a head has 6"):
        rope.rotate_halves(x[..., :6], cos, sin)
