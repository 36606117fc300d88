"""config.json in and out: their settings, checked one by one, as fields of our config, and back."""

import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, fields
from typing import Any, get_args

from torch import nn

from minillm.models.hub_format import HubFormat, Setting, format_of

_ABSENT = object()


def hf_config(model: nn.Module) -> dict[str, Any]:
    """Return the settings under which transformers builds the same model.

    They are read back at once: a field that the format cannot say is a ValueError.
    """
    settings = nested(settings_of(format_of(model), model.config))
    dtype = str(next(model.parameters()).dtype).removeprefix("torch.")
    # the end-of-text ids belong to the tokenizer; null keeps transformers from assuming its own
    return {"bos_token_id": None, "eos_token_id": None, "dtype": dtype, **settings}


def settings_of(hub_format: HubFormat, config: Any) -> dict[str, Any]:
    """Their settings for our config, dotted names left as they are."""
    settings = {**hub_format.extra, **hub_format.fixed}
    settings = {name: first_of(value) for name, value in settings.items()}
    for theirs, ours in hub_format.config.items():
        value = getattr(config, _field(ours))
        settings[theirs] = ours.write(value) if isinstance(ours, Setting) else value
    again = type(config)(**config_fields(hub_format, nested(settings), type(config)))
    for field in fields(config):
        value, known = getattr(config, field.name), getattr(again, field.name)
        if value != known:
            raise ValueError(
                f"{field.name} {value} cannot be exported: this format knows only {known}"
            )
    return settings


def config_fields(
    hub_format: HubFormat, config: Mapping[str, Any], config_class: type
) -> dict[str, Any]:
    """Return all fields of our config from their settings; ValueError for what we do not have.

    A field's type says what may stand there: a whole number is at least 1, a fraction finite and
    ≥ 0, a bool a bool. Settings that are missing have the format's `defaults`, then our config's.
    """
    check_fixed(hub_format, config)
    kinds = {field.name: field.type for field in fields(config_class)}
    found: dict[str, Any] = {}
    sources: dict[str, str] = {}
    for theirs, ours in hub_format.config.items():
        value = setting(hub_format, config, theirs)
        if value is _ABSENT:
            continue
        name = _field(ours)
        if isinstance(ours, Setting):
            value = _read(ours, theirs, value)
        else:
            value = _checked(theirs, value, kinds.get(name, int))
        sources.setdefault(name, theirs)
        if found.setdefault(name, value) != value:
            raise ValueError(
                f"{theirs}={value!r} differs from {found[name]!r}; "
                f"this model has one {name} for all"
            )
    return _completed(hub_format, found, sources, config_class)


def check_fixed(hub_format: HubFormat, config: Mapping[str, Any]) -> None:
    """Raise ValueError for a setting with a value that our model does not have."""
    for name, wanted in {**hub_format.accepted, **hub_format.fixed}.items():
        value = _ABSENT if name == "architectures" else setting(hub_format, config, name)
        if value is _ABSENT:
            continue
        if callable(wanted):
            if not _holds(wanted, value):
                raise ValueError(f"{name}={value!r:.80} is not supported")
        elif value not in (wanted if isinstance(wanted, tuple) else (wanted,)):
            raise ValueError(f"{name}={value!r:.80} is not supported, only {first_of(wanted)!r}")


def setting(hub_format: HubFormat, config: Mapping[str, Any], name: str) -> Any:
    """Their setting under its name, an older one, or the format's default for it."""
    others = [old for old, new in hub_format.aliases.items() if new == name]
    values = {n: v for n in (name, *others) if (v := _find(config, n)) is not _ABSENT}
    if not values:
        return hub_format.defaults.get(name, _ABSENT)
    (one, value), *rest = values.items()
    for other, again in rest:
        if again != value:
            raise ValueError(f"{one}={value!r:.40} and {other}={again!r:.40} contradict each other")
    return value


def nested(settings: Mapping[str, Any]) -> dict[str, Any]:
    """{"a.b": 1, "a.c": 2} → {"a": {"b": 1, "c": 2}}; values that are dicts are merged, too."""
    out: dict[str, Any] = {}
    for name, value in settings.items():
        *path, last = name.split(".")
        place = out
        for part in path:
            place = place.setdefault(part, {})
        old = place.get(last)
        both = isinstance(value, dict) and isinstance(old, dict)
        place[last] = {**old, **value} if both else value
    return out


def first_of(value: Any) -> Any:
    """The first of several values that are all right (a tuple), or the only one."""
    return value[0] if isinstance(value, tuple) else value


def _find(config: Mapping[str, Any], name: str) -> Any:
    """The value of a dotted name; GGUF has the dots in its keys, config.json an object inside."""
    if name in config:
        return config[name]
    head, _, rest = name.partition(".")
    inner = config.get(head) if rest else None
    if inner is None:
        return _ABSENT
    if not isinstance(inner, Mapping):
        raise ValueError(f"{head}={inner!r:.80} is not an object with an entry {rest}")
    return _find(inner, rest)


def _holds(test: Callable[[Any], bool], value: Any) -> bool:
    """Whether a setting's value is fine; one of a kind that the test cannot take is not."""
    try:
        return test(value)
    except (TypeError, ValueError, AttributeError, LookupError):
        return False


def _read(ours: Setting, theirs: str, value: Any) -> Any:
    try:
        return ours.read(value)
    except (TypeError, ValueError, AttributeError, LookupError, OverflowError) as error:
        raise ValueError(f"{theirs}={value!r:.80} cannot be used: {error}") from error


def _field(ours: str | Setting) -> str:
    return ours.field if isinstance(ours, Setting) else ours


def _completed(
    hub_format: HubFormat, found: dict[str, Any], sources: Mapping[str, str], config_class: type
) -> dict[str, Any]:
    """Add the defaults of our config, and check what it derives by itself (a property)."""
    own = fields(config_class)
    for field in own:
        if field.name in found:
            continue
        if field.default is MISSING and field.default_factory is MISSING:
            missing = names_of(hub_format, field.name)
            raise ValueError(f"{missing} is missing; copy the file again")
        if field.default is not MISSING:
            found[field.name] = field.default
    numbers = {field.name: found[field.name] for field in own if field.name in found}
    derived = found.keys() - numbers.keys()
    if derived:
        made = config_class(**numbers)  # ValueError for numbers that describe no model
        for name in derived:
            if getattr(made, name) != found[name]:
                raise ValueError(
                    f"{sources[name]}={found[name]!r} is not supported: {name} is "
                    f"{getattr(made, name)!r} in this model"
                )
    return numbers


def names_of(hub_format: HubFormat, field: str) -> str:
    """What a field of ours is called in the file, for a message."""
    names: Iterable[str] = (t for t, ours in hub_format.config.items() if _field(ours) == field)
    return " or ".join(names) or f"a setting for {field}"


def _checked(name: str, value: Any, kind: Any) -> Any:
    """`value` if it is what a field of this type may hold; ValueError otherwise."""
    kinds = get_args(kind) or (kind,)
    if value is None and type(None) in kinds:
        return None
    if bool in kinds:
        good, wanted = type(value) is bool, "true or false"
    elif float in kinds:
        good = type(value) in (int, float) and 0 <= value <= sys.float_info.max
        wanted = "a finite number, 0 or more"
    elif int in kinds:
        good, wanted = type(value) is int and value >= 1, "a whole number, at least 1"
    elif str in kinds:
        good, wanted = type(value) is str, "a text"
    else:
        raise TypeError(f"a field of type {kind} needs a `Setting` that reads {name}")
    if not good:
        raise ValueError(f"{name}={value!r:.80} is not {wanted}; correct it or copy the file again")
    return float(value) if float in kinds else value
