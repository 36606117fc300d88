"""A model as a folder that `transformers` reads and writes: config.json and model.safetensors."""

import json
import os
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from minillm.hub.configs import hf_config
from minillm.hub.families import family_of, filled, template
from minillm.hub.safetensors_header import bad, read_header
from minillm.hub.state_dicts import check_finite, matched, to_hf
from minillm.nn.ops import Ops


def save_pretrained(model: nn.Module, folder: str | Path) -> None:
    """Write config.json and model.safetensors for transformers' `from_pretrained(folder)`.

    Both are written beside their places first and then renamed, the config last: a save that fails
    leaves an older checkpoint in `folder` as it was. Weights that are not finite are a ValueError.
    """
    config = hf_config(model)
    tensors = to_hf(model, tied=False)
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
        config = _read_config(config_file)
        family = family_of(config)
        numbers, empty = template(family, config, header)
    except ValueError as error:
        raise ValueError(f"{config_file}: {error}") from error
    try:
        values = matched(empty, load_file(tensor_file))
    except SafetensorError as error:
        raise bad(tensor_file, str(error)) from error
    except ValueError as error:
        raise ValueError(f"{tensor_file}: {error}") from error
    return filled(family, numbers, values, ops)


def _read_config(file: Path) -> dict[str, Any]:
    try:
        config = json.loads(file.read_text("utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"it is not JSON: {error}; copy it again") from error
    if not isinstance(config, dict):
        raise ValueError(f"it holds {config!r:.80}, not an object; copy it again")
    return config
