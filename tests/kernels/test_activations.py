import pytest
import torch

from minillm.kernels import activations
from minillm.nn import ffn


@pytest.mark.parametrize("name", ["swiglu", "geglu", "geglu_tanh"])
@pytest.mark.parametrize("shape", [(1,), (7, 123), (2, 3, 400)], ids=str)
def test_value_and_gradients(agree, data, name, shape):
    agree(getattr(activations, name), getattr(ffn, name), data(*shape), data(*shape))


@pytest.mark.parametrize("name", ["swiglu", "geglu", "geglu_tanh"])
def test_huge_gates_stay_finite(data, check, name):
    gate, up = data(5, 9, scale=1e4, grad=False), data(5, 9, grad=False)
    ours = getattr(activations, name)(gate.float(), up.float())
    assert ours.isfinite().all()
    check(ours, getattr(ffn, name)(gate.double(), up.double()))


def test_types_must_agree(data):
    with pytest.raises(ValueError, match="must be of one shape and type"):
        activations.swiglu(data(3, 4), data(3, 4).double())


def test_forms_of_gelu_are_told_apart(data):
    gate, up = data(64, grad=False).float() * 2, torch.ones(64, device=data(1).device)
    assert (activations.geglu(gate, up) - ffn.geglu_tanh(gate, up)).abs().max() > 1e-4
