"""Keep answers honest: plain data, not objects that pose as it, and checks that still bite."""

import builtins
import functools
import sys
import types
from typing import Any

from minillm.exercises.suites import Suite, judge

# What checks rely on; everything below `minillm` is watched too.
WATCHED = (
    "torch", "torch.nn", "torch.nn.functional", "torch.testing", "torch.testing._comparison",
    "torch.linalg", "torch.special", "torch.autograd", "torch.overrides", "torch.distributions",
    "torch.utils._python_dispatch", "numpy", "numpy.testing", "numpy.linalg", "math", "inspect",
    "itertools", "functools", "operator", "random", "statistics", "collections", "json",
)  # fmt: skip
# With one of these, an object of a notebook's class could pose as the right number.
POSING = {
    "__eq__", "__ne__", "__lt__", "__le__", "__gt__", "__ge__", "__bool__", "__float__", "__int__",
    "__sub__", "__rsub__", "__abs__", "__len__", "__index__", "__array__", "__torch_function__",
    "__torch_dispatch__", "__getattr__", "__getattribute__", "__class__", "__truediv__", "__iter__",
}  # fmt: skip
FUNCTIONS = (
    types.FunctionType, types.BuiltinFunctionType, types.MethodType, functools.partial,
    functools._lru_cache_wrapper,
)  # fmt: skip
# Torch replaces this one itself, when something first calls for its compiler.
RESTLESS = {("torch", "manual_seed")}
HEAP_TYPE = 1 << 9  # set for classes made at run time, as by a `class` statement


class Tampering:
    """What torch, numpy, … looked like before the learner's code ran, to be compared afterwards."""

    def __init__(self):
        modules = {n: m for n, m in list(sys.modules.items()) if type(m) is types.ModuleType}
        self.owners: dict[str, Any] = {
            name: module
            for name, module in modules.items()
            if name in WATCHED or (name.startswith("minillm.") and "exercises" not in name)
        }
        self.owners["builtins"] = builtins
        self.torch = sys.modules.get("torch")
        if self.torch:
            classes = (self.torch.Tensor, self.torch._C.TensorBase, self.torch.nn.Module)
            self.owners |= {kind.__name__: kind for kind in classes}
        self.before = {owner: self.members(owner) for owner in self.owners}
        modes = self.torch and self.torch.overrides._get_current_function_mode_stack
        self.modes = modes or list
        self.judge, self.decoy = judge, lambda *args, **kwargs: None

    def members(self, owner: str) -> dict[str, tuple]:
        """A class's members, a module's public callables, and the code of those in Python."""
        found, is_class = {}, isinstance(self.owners[owner], type)
        for name, value in list(vars(self.owners[owner]).items()):
            if is_class or (callable(value) and not name.startswith("_")):
                code = value.__code__ if type(value) is types.FunctionType else None
                found[name] = (value, code)
        return found

    def found(self) -> list[str]:
        """The names of what was replaced or removed since."""
        replaced = []
        for owner, before in self.before.items():
            now = self.members(owner)
            for name, (value, code) in before.items():
                there = now.get(name, (None, None))
                same = there[0] is value and there[1] is code
                if not same and (owner, name) not in RESTLESS:
                    replaced.append(f"{owner}.{name} was replaced")
            if isinstance(self.owners[owner], type):
                added = sorted(POSING & set(now) - set(before))
                replaced += [f"{owner}.{name} was added" for name in added]
        if self.modes():
            replaced.append("a torch function mode is active")
        return replaced[:20]

    def gullible(self, suite: Suite) -> list[str]:
        """The checks that accept no answer at all: something they rely on was replaced."""
        flags = []
        for case in suite.cases:
            nothing = dict.fromkeys(case.parameters, self.decoy)
            if self.judge(case, suite.question, nothing).verdict == "passed":
                flags.append(f"the check {case.name} of {suite.question} accepts anything")
        return flags


def guarded(value: Any) -> Any:
    """`value` if it is plain data; a function comes back with its results guarded likewise.

    Raises `TypeError` for an object whose class, written in the notebook, says what `==` means.
    """
    kind = type(value)
    if kind is types.GeneratorType:
        return (guarded(item) for item in value)
    if kind in (list, tuple, set, frozenset):
        return kind(guarded(item) for item in value)
    if kind is dict:
        return {key: guarded(item) for key, item in value.items()}
    if kind in FUNCTIONS:
        return wrapped(value)
    if any(POSING & set(vars(base)) for base in kind.__mro__ if not is_library_type(base)):
        raise TypeError(
            f"expected numbers, text, tensors or a function, got a {kind.__name__}, "
            "a class of the notebook that defines what comparisons mean"
        )
    return value


def wrapped(function: Any) -> Any:
    """`function` with its results guarded."""

    @functools.wraps(function)
    def called(*args: Any, **kwargs: Any) -> Any:
        return guarded(function(*args, **kwargs))

    return called


def is_library_type(kind: type) -> bool:
    """Whether a class is built in, or the one that a module other than the notebook calls so."""
    if not vars(type)["__flags__"].__get__(kind) & HEAP_TYPE:
        return True
    found: Any = sys.modules.get(kind.__module__)
    for part in kind.__qualname__.split("."):
        found = getattr(found, part, None)
    return kind.__module__ != "__main__" and found is kind
