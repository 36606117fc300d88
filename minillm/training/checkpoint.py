"""Checkpoints: one safetensors file holds weights, optimizer state, random state and JSON.

*One* file, written beside its place and then renamed over it: a rename within a folder is atomic,
so whatever interrupts a save, the old checkpoint or the new one is there, whole. No pickle: a
checkpoint from somebody else can hold wrong numbers but cannot run code.

Loading checks everything first and copies afterwards: an unusable file leaves the model as it was.

Tensors are called `model.<name>`, `optimizer.<number>.<name>` and `random.cpu`, `random.cuda.<i>`;
the JSON is the header's metadata entry `minillm`.
"""

import json
import math
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from minillm.hub.safetensors_header import read_header

FORMAT = 1
# How torch computes the same update, not which update: a resumed run may choose anew.
_SWITCHES = {"foreach", "fused", "capturable", "differentiable", "params"}


def save(
    path: str | os.PathLike,
    model: nn.Module,
    optimizer: torch.optim.Optimizer | None = None,
    *,
    step: int,
    data_state: Any = None,
    extra: Any = None,
) -> Path:
    """Write model, optimizer, torch's random state, `step` and two JSON values; all or nothing.

    `data_state` is what the data needs to go on (for `TokenWindows` the step is enough), `extra`
    whatever else: configuration, tokenizer's name. A ValueError, and no file touched, if a number
    in the model or the optimizer is not finite or a JSON value cannot be written.
    """
    path = Path(path)
    if type(step) is not int or step < 0:
        raise ValueError(f"step is {step!r}; give the number of updates made, a whole number")
    tensors, aliases = _model_tensors(model)
    state = {"format": FORMAT, "step": step, "data_state": data_state, "extra": extra}
    state["aliases"] = aliases
    if optimizer is not None:
        more, state["groups"] = _optimizer_tensors(optimizer)
        tensors |= more
    for name, tensor in tensors.items():
        _check_finite(name, tensor, f"{path} was not written", "go back to the last checkpoint")
    tensors["random.cpu"] = torch.get_rng_state()
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        for i, random in enumerate(torch.cuda.get_rng_state_all()):
            tensors[f"random.cuda.{i}"] = random
    try:
        metadata = {"minillm": json.dumps(state, allow_nan=False)}
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"data_state or extra is not JSON: {error}; give dicts, lists, strings, finite numbers"
        ) from error
    for name, value in (("data_state", data_state), ("extra", extra)):
        if json.loads(json.dumps(value)) != value:  # keys that are no strings, tuples
            raise ValueError(
                f"{name} is {value!r:.80}, which JSON gives back changed; "
                "use strings as keys and lists for sequences"
            )
    with _replacing(path) as temporary:
        save_file(tensors, temporary, metadata)
    return path


def load(
    path: str | os.PathLike, model: nn.Module, optimizer: torch.optim.Optimizer | None = None
) -> dict[str, Any]:
    """Fill `model` and, when resuming, `optimizer` and torch's random state; return the rest.

    Returns {"step", "data_state", "extra"}. Without `optimizer` only the weights are read and the
    random state is left alone. A file that is cut short, malformed, not finite or made for another
    model is a ValueError that names it, and changes nothing.
    """
    path = Path(path)
    tensors, state = _read(path)
    tensors |= {
        f"model.{alias}": tensors[f"model.{name}"]
        for alias, name in state["aliases"].items()
        if f"model.{name}" in tensors
    }
    weights = _section(tensors, "model.")
    expected = model.state_dict()
    _check_names(path, "model", weights.keys(), expected.keys())
    for name, tensor in weights.items():
        _check_like(path, f"model.{name}", tensor, expected[name])
    if optimizer is not None:
        optimizer_state = _optimizer_state(path, tensors, state, optimizer)
        random = _random_state(path, tensors)

    # Everything was checked; from here on nothing is expected to fail.
    with torch.no_grad():
        for name, tensor in weights.items():
            expected[name].copy_(tensor)
    if optimizer is not None:
        optimizer.load_state_dict(optimizer_state)
        torch.set_rng_state(random)
        if torch.cuda.is_available():
            for i in range(torch.cuda.device_count()):
                if f"random.cuda.{i}" in tensors:
                    torch.cuda.set_rng_state(tensors[f"random.cuda.{i}"], i)
    return {key: state[key] for key in ("step", "data_state", "extra")}


def numbered(folder: str | os.PathLike, step: int) -> Path:
    """Where the checkpoint after `step` updates belongs in `folder`."""
    return Path(folder) / f"step-{step:08d}.safetensors"


def latest(folder: str | os.PathLike) -> Path | None:
    """The checkpoint with the highest step in `folder`, or None; unfinished files do not count."""
    found = (
        (int(match[1]), path)
        for path in Path(folder).glob("step-*.safetensors")
        if (match := re.fullmatch(r"step-(\d+)\.safetensors", path.name))
    )
    return max(found, default=(0, None))[1]


# Collecting


def _model_tensors(model: nn.Module) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors by name, and for tied ones (two names, one memory) alias → first name."""
    tensors: dict[str, Tensor] = {}
    aliases: dict[str, str] = {}
    first: dict[tuple, str] = {}
    for name, tensor in model.state_dict().items():
        memory = (tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype)
        if tensor.numel() and memory in first:
            aliases[name] = first[memory]
            continue
        first[memory] = name
        tensors[f"model.{name}"] = tensor.detach().cpu().contiguous()
    return tensors, aliases


def _optimizer_tensors(
    optimizer: torch.optim.Optimizer,
) -> tuple[dict[str, Tensor], list[dict[str, Any]]]:
    state = optimizer.state_dict()
    tensors = {
        f"optimizer.{number}.{name}": torch.as_tensor(value).detach().cpu().contiguous()
        for number, values in state["state"].items()
        for name, value in values.items()
    }
    groups = [
        {key: value for key, value in group.items() if key not in _SWITCHES}
        | {"count": len(group["params"])}
        for group in state["param_groups"]
    ]
    return tensors, groups


@contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """A temporary path whose file takes the place of `path` when the block ends well."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for leftover in path.parent.glob(f".{path.name}.*.tmp"):  # of processes that were killed
        if time.time() - leftover.stat().st_mtime > 3600:
            leftover.unlink(missing_ok=True)
    temporary = path.parent / f".{path.name}.{os.getpid()}.tmp"
    try:
        yield temporary
        _flush(temporary)  # the contents reach the disk before the name does
        os.replace(temporary, path)
        if os.name == "posix":
            _flush(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


# Checking


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    header = read_header(path)
    state = _parse_state(path, header.get("__metadata__", {}).get("minillm"))
    try:
        return load_file(path), state
    except (SafetensorError, OSError, ValueError) as error:
        raise _unusable(path, f"it cannot be read: {error}") from error


def _parse_state(path: Path, text: str | None) -> dict[str, Any]:
    if text is None:
        raise _unusable(path, "its metadata has no entry 'minillm', so it is not a checkpoint")

    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is not a JSON number")

    try:
        state = json.loads(text, parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise _unusable(path, f"its entry 'minillm' is not JSON: {error}") from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        found = state.get("format") if isinstance(state, dict) else state
        raise _unusable(path, f"its format is {found!r:.80}, not {FORMAT}")
    step, aliases = state.get("step"), state.get("aliases")
    if type(step) is not int or step < 0:
        raise _unusable(path, f"its step is {step!r:.80}, not a number of updates")
    if not isinstance(aliases, dict) or not all(isinstance(v, str) for v in aliases.values()):
        raise _unusable(path, f"its aliases are {aliases!r:.80}, not names of tied weights")
    return state | {key: state.get(key) for key in ("data_state", "extra")}


def _optimizer_state(
    path: Path, tensors: dict[str, Tensor], state: dict[str, Any], optimizer: torch.optim.Optimizer
) -> dict[str, Any]:
    """The state dict for `optimizer`, checked against its groups and its parameters' shapes."""
    live = optimizer.state_dict()["param_groups"]
    saved = state.get("groups")
    if saved is None:
        raise _unusable(path, "it was saved without an optimizer; load it without one")
    if not isinstance(saved, list) or not all(isinstance(group, dict) for group in saved):
        raise _unusable(path, f"its groups are {saved!r:.80}, not a list of settings")
    counts = [group.get("count") for group in saved]
    wanted = [len(group["params"]) for group in live]
    if counts != wanted:
        raise _unusable(path, f"its groups hold {counts} parameters, the optimizer's {wanted}")
    groups = [_settings(path, ours, theirs) for ours, theirs in zip(live, saved, strict=True)]
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    moments: dict[int, dict[str, Tensor]] = {}
    for name, tensor in _section(tensors, "optimizer.").items():
        match = re.fullmatch(r"(\d{1,9})\.(\w+)", name)
        if not match or int(match[1]) >= len(parameters):
            raise _unusable(path, f"it has optimizer.{name}, of no parameter")
        if tensor.dim():
            _check_like(path, f"optimizer.{name}", tensor, parameters[int(match[1])])
        else:
            _check_finite(f"optimizer.{name}", tensor, str(path), "use an earlier checkpoint")
        if match[2] in ("step", "exp_avg_sq") and bool((tensor < 0).any()):
            raise _unusable(path, f"optimizer.{name} holds {tensor.min().item()}, below 0")
        moments.setdefault(int(match[1]), {})[match[2]] = tensor
    kinds = {frozenset(values) for values in (*moments.values(), *optimizer.state.values())}
    if len(kinds) > 1:
        raise _unusable(path, f"its optimizer state has uneven parts {sorted(map(sorted, kinds))}")
    return {"state": moments, "param_groups": groups}


def _settings(path: Path, live: dict[str, Any], saved: dict[str, Any]) -> dict[str, Any]:
    """The live group with the saved settings: same kind of value, finite numbers."""
    merged = dict(live)
    for key, value in saved.items():
        if key in _SWITCHES or key == "count" or (key not in live and key != "initial_lr"):
            continue
        old = live.get(key, 0.0)
        if isinstance(old, tuple) and isinstance(value, list) and len(old) == len(value):
            value = tuple(value)
        numbers = value if isinstance(value, tuple) else (value,)
        if type(old) is bool or old is None or isinstance(old, str):
            good = type(value) is type(old)
        else:
            good = isinstance(value, tuple) == isinstance(old, tuple) and all(
                type(n) in (int, float) and math.isfinite(n) and n >= 0 for n in numbers
            )
        if not good:
            raise _unusable(path, f"its optimizer setting {key} is {value!r:.80}")
        merged[key] = value
    return merged


def _random_state(path: Path, tensors: dict[str, Tensor]) -> Tensor:
    state = tensors.get("random.cpu")
    try:
        torch.Generator().set_state(state)
    except (TypeError, RuntimeError) as error:
        raise _unusable(path, f"its random state is not usable: {error}") from error
    return state


def _section(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): t for k, t in tensors.items() if k.startswith(prefix)}


def _check_names(path: Path, what: str, found, wanted) -> None:
    missing, extra = sorted(wanted - found), sorted(found - wanted)
    if missing or extra:
        raise _unusable(
            path,
            f"it is of another {what}: missing {_some(missing)}, unknown {_some(extra)}",
            "build the model with the configuration it was saved with",
        )


def _some(names: list[str]) -> str:
    return (", ".join(names[:3]) + (f" and {len(names) - 3} more" if names[3:] else "")) or "none"


def _check_like(path: Path, name: str, tensor: Tensor, like: Tensor) -> None:
    if tensor.shape != like.shape or tensor.dtype != like.dtype:
        raise _unusable(
            path,
            f"{name} is {tensor.dtype} {tuple(tensor.shape)}, the model's is "
            f"{like.dtype} {tuple(like.shape)}",
            "build the model with the configuration it was saved with",
        )
    _check_finite(name, tensor, str(path), "use an earlier checkpoint")


def _check_finite(name: str, tensor: Tensor, where: str, way_out: str) -> None:
    if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
        bad = tensor[~torch.isfinite(tensor)].flatten()
        raise ValueError(f"{where}: {name} holds {len(bad)} times {bad[0].item()}; {way_out}")


def _unusable(path: Path, why: str, way_out: str = "use an earlier checkpoint") -> ValueError:
    return ValueError(f"{path} is not usable: {why}; {way_out}")
