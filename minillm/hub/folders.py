"""A model as a folder that `transformers` reads and writes: config.json and model.safetensors."""

import json
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from minillm.hub.safetensors_header import bad, read_header
from minillm.hub.state_dicts import check_finite, copy_in, matched, to_hf
from minillm.models.gpt import gpt1, gpt2
from minillm.models.hub_format import HubFormat
from minillm.nn.ops import Ops

PRESETS: dict[str, Callable[..., nn.Module]] = {"openai-gpt": gpt1, "gpt2": gpt2}


def save_pretrained(model: nn.Module, folder: str | Path) -> None:
    """Write config.json and model.safetensors for transformers' `from_pretrained(folder)`.

    Both are written beside their places first and then renamed, the config last: a save that fails
    leaves an older checkpoint in `folder` as it was. Weights that are not finite are a ValueError.
    """
    config = hf_config(model)
    tensors = to_hf(model)
    for name in model.hub_format.tied:
        del tensors[name]
    for name, tensor in tensors.items():
        check_finite(name, tensor)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    names = ("model.safetensors", "config.json")
    temporary = {name: folder / f".{name}.{os.getpid()}.tmp" for name in names}
    try:
        save_file(tensors, temporary["model.safetensors"], metadata={"format": "pt"})
        temporary["config.json"].write_text(json.dumps(config, indent=2) + "\n", "utf-8")
        for name in names:
            os.replace(temporary[name], folder / name)
    finally:
        for path in temporary.values():
            path.unlink(missing_ok=True)


def load_pretrained(folder: str | Path, *, ops: Ops | None = None) -> nn.Module:
    """Build the model a folder describes and fill it; returned in evaluation mode.

    The tensors are converted to PyTorch's default dtype. Settings, names, shapes, types and values
    are checked first: a ValueError names the file and what is wrong, and nothing was built.
    """
    config_file, tensor_file = (Path(folder) / n for n in ("config.json", "model.safetensors"))
    for file in (config_file, tensor_file):
        if not file.is_file():
            raise ValueError(f"{file} is missing; a checkpoint folder has both files")
    header = read_header(tensor_file)
    try:
        preset, numbers, template = _template(_read_config(config_file), header)
    except ValueError as error:
        raise ValueError(f"{config_file}: {error}") from error
    try:
        values = matched(template, load_file(tensor_file))
    except SafetensorError as error:
        raise bad(tensor_file, str(error)) from error
    except ValueError as error:
        raise ValueError(f"{tensor_file}: {error}") from error
    model = preset(ops=ops, **numbers)
    copy_in(model, values)
    return model.eval()


def hf_config(model: nn.Module) -> dict[str, Any]:
    """Return the settings under which transformers builds the same model."""
    ours = {theirs: getattr(model.config, name) for theirs, name in model.hub_format.config.items()}
    if "n_inner" not in ours and model.config.d_ff != 4 * model.config.d_model:
        raise ValueError(
            f"d_ff {model.config.d_ff} cannot be exported: this format knows only 4 · d_model"
        )
    dtype = str(next(model.parameters()).dtype).removeprefix("torch.")
    # the end-of-text ids belong to the tokenizer; null keeps transformers from assuming GPT-2's
    return {
        **model.hub_format.fixed,
        **ours,
        "dtype": dtype,
        "bos_token_id": None,
        "eos_token_id": None,
    }


def config_fields(
    hub_format: HubFormat, config: Mapping[str, Any], kinds: Mapping[str, Any]
) -> dict[str, Any]:
    """Return our config's fields from theirs; ValueError for a setting this model does not have.

    `kinds` are the types of our fields: a whole number is at least 1, any other finite and ≥ 0.
    """
    for name, value in hub_format.fixed.items():
        if name in config and config[name] != value and name != "architectures":
            raise ValueError(f"{name}={config[name]!r:.80} is not supported, only {value!r}")
    found: dict[str, Any] = {}
    for theirs, ours in hub_format.config.items():
        if theirs not in config:
            continue
        value = _checked(theirs, config[theirs], kinds[ours])
        if found.setdefault(ours, value) != value:
            raise ValueError(
                f"{theirs}={value!r} differs from {found[ours]!r}; "
                f"this model has one {ours} for all"
            )
    return found


def _checked(name: str, value: Any, kind: Any) -> int | float | None:
    if value is None and kind == int | None:
        return None
    if kind in (int, int | None):
        good = type(value) is int and value >= 1
        wanted = "a whole number, at least 1"
    else:
        good = type(value) in (int, float) and 0 <= value <= sys.float_info.max
        wanted = "a finite number, 0 or more"
    if not good:
        raise ValueError(f"{name}={value!r:.80} is not {wanted}; correct it or copy the file again")
    return float(value) if kind is float else value


def _read_config(file: Path) -> dict[str, Any]:
    try:
        config = json.loads(file.read_text("utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"it is not JSON: {error}; copy it again") from error
    kind = config.get("model_type") if isinstance(config, dict) else config
    if not isinstance(config, dict) or not isinstance(kind, str) or kind not in PRESETS:
        raise ValueError(f"model_type {kind!r:.80} is not known here; known: {', '.join(PRESETS)}")
    return config


def _template(
    config: dict[str, Any], header: Mapping[str, Any]
) -> tuple[Callable[..., nn.Module], dict[str, Any], nn.Module]:
    """The preset, its arguments, and the model on the meta device: shapes without memory."""
    preset = PRESETS[config["model_type"]]
    with torch.device("meta"):
        tiny = preset(vocab_size=1, max_seq_len=1, d_model=1, n_layers=1, n_heads=1)
        kinds = {field.name: field.type for field in fields(tiny.config)}
        numbers = config_fields(tiny.hub_format, config, kinds)
        layers = _count_layers(tiny.hub_format, header)
        theirs = next(k for k, v in tiny.hub_format.config.items() if v == "n_layers")
        if numbers.get("n_layers", layers) != layers:  # before building: it may be 10⁷
            raise ValueError(
                f"{theirs}={numbers['n_layers']}, but the tensors are those of {layers} layers; "
                "copy both files from the same checkpoint"
            )
        try:
            return preset, numbers, preset(**numbers)
        except (RuntimeError, OverflowError, TypeError) as error:  # sizes beyond 64 bits
            reason = str(error).splitlines()[0]
            raise ValueError(f"{numbers} describe no model: {reason:.120}; correct them") from error


def _count_layers(hub_format: HubFormat, header: Mapping[str, Any]) -> int:
    """How many tensors fill the place of the first key that every layer has."""
    key = next(key for key in hub_format.keys if "{i}" in key)
    head, tail = key.removeprefix(hub_format.prefix).split("{i}")
    names = (name.removeprefix(hub_format.prefix) for name in header)
    return sum(n.startswith(head) and n.endswith(tail) for n in names)
