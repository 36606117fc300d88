"""Keep answers honest: plain data, not objects that pose as it, and checks that still bite."""

import builtins
import functools
import sys
import types
from collections.abc import Callable
from typing import Any

from minillm.exercises.suites import Case, Result, Suite, judge

# What checks rely on; everything below `minillm` is watched too.
WATCHED = (
    "torch", "torch.nn", "torch.nn.functional", "torch.testing", "torch.testing._comparison",
    "torch.linalg", "torch.special", "torch.autograd", "torch.overrides", "torch.distributions",
    "torch.utils._python_dispatch", "numpy", "numpy.testing", "numpy.linalg", "math", "inspect",
    "itertools", "functools", "operator", "random", "statistics", "collections", "json", "types",
)  # fmt: skip
# With one of these, an object of a notebook's class could pose as the right number.
POSING = frozenset({
    "__eq__", "__ne__", "__lt__", "__le__", "__gt__", "__ge__", "__bool__", "__float__", "__int__",
    "__sub__", "__rsub__", "__abs__", "__len__", "__index__", "__array__", "__torch_function__",
    "__torch_dispatch__", "__getattr__", "__getattribute__", "__class__", "__truediv__", "__iter__",
})  # fmt: skip
FUNCTIONS = (
    types.FunctionType, types.BuiltinFunctionType, types.MethodType, functools.partial,
    functools._lru_cache_wrapper,
)  # fmt: skip
# Torch replaces these itself: for its compiler, and when the default dtype changes.
RESTLESS = frozenset(
    {
        ("torch", "manual_seed"), ("torch", "Storage"),
        ("Module", "__init__"), ("Module", "__setstate__"),
    }
)  # fmt: skip
ANSWERS: dict[int, tuple] = {}  # what was wrapped by the id of its wrapper, kept alive here
HEAP_TYPE = 1 << 9  # set for classes made at run time, as by a `class` statement


def sealed(*spaces: dict[str, Any]) -> dict[str, Any]:
    """What `spaces` define, in one namespace whose functions see each other and nothing outside.

    A learner who comes upon a module of the grader, or replaces a builtin, does not change these.
    """
    space: dict[str, Any] = {}
    for names in spaces:
        space |= names
    space["__builtins__"] = dict(vars(builtins))
    for name, value in list(space.items()):
        if type(value) is types.FunctionType and any(value.__globals__ is s for s in spaces):
            code, defaults, closure = value.__code__, value.__defaults__, value.__closure__
            space[name] = types.FunctionType(code, space, name, defaults, closure)
            space[name].__kwdefaults__ = value.__kwdefaults__
    return space


def watch(suites: list[Suite], *kinds: type) -> Callable[..., list[str]]:
    """A function that tells what was replaced since now in torch, numpy, …, and in the checks.

    Its `changed` tells the same as a dictionary, and does not compare code objects unless asked: a
    fence keeps learners from replacing those.
    """
    owners = watched() | {kind.__name__: vars(kind) for kind in (*kinds, Case, Suite, Result)}
    for suite in suites:
        space = suite.cases[0].function.__globals__
        ours = {"": space, ".__builtins__": space["__builtins__"]}
        ours |= {f".{case.name}": vars(case) for case in suite.cases}
        owners |= {f"checks.{suite.question}{name}": names for name, names in ours.items()}
    before = {name: members(name, owner) for name, owner in owners.items()}
    now_active, classes = active_modes(), [n for n, o in owners.items() if is_class(o)]
    owned = {name: POSING & set(owners[name]) for name in classes}
    nothing = object()

    def changed(codes: bool = False) -> dict[str, int]:
        """What differs by name, and which object is there now."""
        differs = {}
        for owner, names in before.items():
            there = owners[owner].get
            for name, (value, code) in names.items():
                now = there(name, nothing)
                same = now is value and (not codes or code is None or now.__code__ is code)
                if not same and (owner, name) not in RESTLESS:
                    differs[f"{owner}.{name} was replaced"] = id(now)
        for owner in classes:
            added = sorted(POSING & set(owners[owner]) - owned[owner])
            differs |= {f"{owner}.{name} was added": 0 for name in added}
        modes = now_active()
        return differs | ({"a torch function mode is active": id(modes[-1])} if modes else {})

    def found() -> list[str]:
        return list(changed(codes=True))[:20]

    found.changed = changed
    return found


def is_class(names: Any) -> bool:
    """Whether `names` are those of a class."""
    return type(names) is types.MappingProxyType


def watched() -> dict[str, Any]:
    """The names of what checks rely on: of modules and of torch's main classes."""
    modules = {n: m for n, m in list(sys.modules.items()) if type(m) is types.ModuleType}
    owners: dict[str, Any] = {
        name: vars(module)
        for name, module in modules.items()
        if name in WATCHED or (name.startswith("minillm.") and "exercises" not in name)
    }
    owners["builtins"] = vars(builtins)
    torch = sys.modules.get("torch")
    if torch:
        classes = (torch.Tensor, torch._C.TensorBase, torch.nn.Module)
        owners |= {kind.__name__: vars(kind) for kind in classes}
    return owners


def members(owner: str, names: Any) -> dict[str, tuple]:
    """A class's members, a module's public callables, and the code of those in Python."""
    found, all_of_them = {}, is_class(names) or owner.startswith("checks.")
    for name, value in list(names.items()):
        if all_of_them or (callable(value) and not name.startswith("_")):
            code = value.__code__ if type(value) is types.FunctionType else None
            found[name] = (value, code)
    return found


def active_modes() -> Callable[[], list]:
    """A function that lists torch's modes that are active, but for the default device."""
    torch = sys.modules.get("torch")
    if not torch:
        return list
    from torch.utils._device import DeviceContext
    from torch.utils._python_dispatch import _get_current_dispatch_mode_stack

    functions = torch.overrides._get_current_function_mode_stack

    def active() -> list:
        modes = [*functions(), *_get_current_dispatch_mode_stack()]
        return [mode for mode in modes if type(mode) is not DeviceContext]

    return active


def calming() -> Callable[[], None]:
    """A function that takes back the defaults of torch that an honest notebook may have set."""
    torch = sys.modules.get("torch")
    if not torch:
        return lambda: None
    dtype, device, grad = torch.set_default_dtype, torch.set_default_device, torch.set_grad_enabled
    usual = torch.get_default_dtype()

    def calm() -> None:
        for reset, default in ((dtype, usual), (device, None), (grad, True)):
            try:
                reset(default)
            except Exception:  # what it relies on was replaced: that is found elsewhere
                continue

    return calm


def gullible(suite: Suite) -> list[str]:
    """The checks that accept no answer at all: something they rely on was replaced."""
    flags = []
    for case in suite.cases:
        nothing = dict.fromkeys(case.parameters, lambda *args, **kwargs: None)
        if judge(case, suite.question, nothing).verdict == "passed":
            flags.append(f"the check {case.name} of {suite.question} accepts anything")
    return flags


def guarded(value: Any, after: Callable[[dict], None] | None = None) -> Any:
    """`value` if it is plain data; a function comes back with its results guarded likewise.

    `after` is called whenever such a function has returned, with what was replaced before it.
    Raises `TypeError` for an object whose class, written in the notebook, says what `==` means.
    """
    kind = type(value)
    if kind is types.GeneratorType:
        return items_of(value, after)
    if kind in (list, tuple, set, frozenset):
        return kind(guarded(item, after) for item in value)
    if kind is dict:
        return {key: guarded(item, after) for key, item in value.items()}
    if kind in FUNCTIONS:
        return wrapped(value, after)
    own = [base for base in kind.__mro__ if not is_library_type(base)]
    if any(POSING & set(vars(base)) for base in own):
        raise TypeError(
            f"expected numbers, text, tensors or a function, got a {kind.__name__}, "
            "a class of the notebook that defines what comparisons mean"
        )
    if own and callable(value) and not isinstance(value, type):
        return wrapped(value, after)
    return plain(value)


def plain(value: Any) -> Any:
    """A tensor of a subclass as a tensor: its class may forge where it comes from."""
    torch = sys.modules.get("torch")
    if not torch or not issubclass(type(value), torch.Tensor):
        return value
    if type(value) in (torch.Tensor, torch.nn.Parameter):
        return value
    with torch._C.DisableTorchFunctionSubclass():
        return torch.Tensor.as_subclass(value, torch.Tensor)


def items_of(values: Any, after: Callable[[dict], None] | None) -> Any:
    """A generator's items, guarded one by one."""
    while True:
        before = after.changed() if after else {}
        try:
            item = next(values)
        except StopIteration:
            return
        finally:
            if after:
                after(before)
        yield guarded(item, after)


def wrapped(function: Any, after: Callable[[dict], None] | None = None) -> Any:
    """`function` with its results guarded; it is handed other answers as the learner wrote them."""

    @functools.wraps(function)
    def called(*args: Any, **kwargs: Any) -> Any:
        args = tuple(ANSWERS.get(id(a), (a, a))[1] for a in args)
        kwargs = {name: ANSWERS.get(id(a), (a, a))[1] for name, a in kwargs.items()}
        before = after.changed() if after else {}
        try:
            result = function(*args, **kwargs)
        finally:
            if after:
                after(before)
        return guarded(result, after)

    ANSWERS[id(called)] = (called, function)
    return called


def is_library_type(kind: type) -> bool:
    """Whether a class is built in, or the one that a module other than the notebook calls so."""
    if not vars(type)["__flags__"].__get__(kind) & HEAP_TYPE:
        return True
    found: Any = sys.modules.get(kind.__module__)
    for part in kind.__qualname__.split("."):
        found = getattr(found, part, None)
    return kind.__module__ != "__main__" and found is kind
