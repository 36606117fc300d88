import builtins
import math
import textwrap
import types
from collections import Counter

import pytest
import torch

from minillm.exercises.guard import calming, guarded, gullible, is_library_type, sealed, watch
from minillm.exercises.suites import load
from minillm.exercises.worker import overseer

ALWAYS = """
class Always:
    def __eq__(self, other): return True
class Meta(type):
    def __eq__(self, other): return True
class Posing(metaclass=Meta): pass
class Forged(int):
    __module__ = "builtins"
    __qualname__ = "int"
    def __eq__(self, other): return True
class Named(float):
    __module__ = "torch"
    __qualname__ = "Tensor"
    def __eq__(self, other): return True
class Honest:
    def __init__(self): self.size = 3
class Fake(torch.Tensor):
    @classmethod
    def __torch_function__(cls, *args, **kwargs): return True
"""


@pytest.fixture(scope="module")
def notebook():
    space = {"__name__": "__main__", "torch": torch}
    exec(ALWAYS, space)
    return types.SimpleNamespace(**space)


@pytest.mark.parametrize(
    "value",
    [
        12,
        0.5,
        "x",
        None,
        True,
        (1, [2.0, {"a": {3}}]),
        torch.ones(2),
        torch.Size([1]),
        Counter("ab"),
    ],
    ids=str,
)
def test_plain_data_passes_unchanged(value):
    assert guarded(value) is value or guarded(value) == value


def test_posing_objects_do_not(notebook):
    fake = torch.ones(2).as_subclass(notebook.Fake)
    for value in (notebook.Always(), notebook.Posing, notebook.Forged(3), notebook.Named(3), fake):
        with pytest.raises(TypeError, match="a class of the notebook"):
            guarded(value)
        with pytest.raises(TypeError):
            guarded([1, (value,)])
        with pytest.raises(TypeError):
            guarded(lambda value=value: value)()
        with pytest.raises(TypeError):
            list(guarded(item for item in [value]))


def test_tensors_of_a_subclass_become_plain(monkeypatch):
    class Posing(torch.Tensor):
        def item(self):
            return 0.0

    Posing.__module__, Posing.__qualname__ = "textwrap", "Posing"
    monkeypatch.setattr(textwrap, "Posing", Posing, raising=False)
    answer = guarded(lambda x: x.as_subclass(Posing))(torch.tensor(3.0))
    assert type(answer) is torch.Tensor
    assert answer.item() == 3.0
    weight = torch.nn.Parameter(torch.ones(2))
    assert guarded(weight) is weight


def test_classes_and_objects_without_comparisons_pass(notebook):
    assert guarded(notebook.Honest) is notebook.Honest
    assert guarded(notebook.Honest()).size == 3
    assert guarded(torch.nn.Linear(2, 3)).in_features == 2


def test_results_of_functions_are_guarded(notebook):
    def make(n, *, name="x"):
        """Docstring."""
        return [name] * n

    assert guarded(make)(2, name="y") == ["y", "y"]
    assert guarded(make).__doc__ == "Docstring."
    assert guarded(math.sqrt)(4.0) == 2.0


def test_library_types(notebook):
    assert is_library_type(int)
    assert is_library_type(torch.Tensor)
    assert is_library_type(Counter)
    assert not is_library_type(notebook.Forged)
    assert not is_library_type(notebook.Named)


def test_replaced_functions_are_found(monkeypatch):
    found = watch([])
    assert found() == []
    monkeypatch.setattr(torch, "allclose", lambda *_: True)
    assert found() == ["torch.allclose was replaced"]
    monkeypatch.undo()
    assert found() == []
    monkeypatch.setattr(torch.Tensor, "__eq__", lambda *_: True)
    assert found() == ["Tensor.__eq__ was added"]
    monkeypatch.undo()
    monkeypatch.setattr(torch.Tensor, "__rsub__", lambda *_: torch.zeros(()))
    assert found() == ["Tensor.__rsub__ was replaced"]


def test_replaced_code_is_found(monkeypatch):
    found = watch([])

    def agree(*args, **kwargs):
        return None

    monkeypatch.setattr(torch.testing.assert_close, "__code__", agree.__code__)
    assert "torch.testing.assert_close was replaced" in found()


def test_checks_that_accept_anything_are_found():
    source = """
from otter.test_files import test_case
points = 1

@test_case(points=1, hidden=False)
def test_nothing(x):
    pass

@test_case(points=1, hidden=False)
def test_something(x):
    assert x(2) == 4, "twice"
"""
    flags = gullible(load("q1", source))
    assert flags == ["the check test_nothing of q1 accepts anything"]


def test_defaults_of_torch_are_no_tampering_and_are_taken_back():
    found, calm = watch([]), calming()
    torch.set_default_dtype(torch.float64)
    torch.set_default_device("cpu")
    torch.set_grad_enabled(False)
    assert found() == []
    calm()
    assert torch.get_default_dtype() == torch.float32
    assert torch.is_grad_enabled()
    assert not torch.overrides._get_current_function_mode_stack()


def test_an_active_mode_is_found():
    class Lies(torch.overrides.TorchFunctionMode):
        pass

    found = watch([])
    with Lies() as mode:
        assert found() == ["a torch function mode is active"]
        assert found.changed() == {"a torch function mode is active": id(mode)}


def test_answers_are_looked_at_when_they_return(monkeypatch):
    found, caught = watch([]), []
    after = overseer(found, caught)

    def patches(x):
        monkeypatch.setattr(torch, "allclose", lambda *_: True)
        return x

    def yields():
        monkeypatch.setattr(torch, "equal", lambda *_: True)
        yield 1

    guarded(patches, after)(3)
    monkeypatch.undo()
    list(guarded(yields(), after))
    guarded(lambda: None, after)()  # what was replaced before is not this answer's doing
    monkeypatch.undo()
    assert caught == ["torch.allclose was replaced", "torch.equal was replaced"]
    assert found() == []


def test_an_answer_given_to_another_is_the_learners_own():
    def same(f):
        return f is plain

    def plain():
        pass

    assert guarded(same)(guarded(plain))
    assert guarded(same)(f=guarded(plain))


def test_sealed_functions_do_not_see_what_is_replaced_later():
    space = {}
    exec("def inner(): return len('ab')\ndef outer(): return inner()", space)
    copy = sealed(space)["outer"]
    space["inner"] = lambda: "replaced"
    assert (space["outer"](), copy()) == ("replaced", 2)
    assert copy.__builtins__ is not vars(builtins)
