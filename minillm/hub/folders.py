"""A model as a folder that `transformers` reads and writes: config.json and safetensors."""

import json
import os
from collections.abc import Container
from pathlib import Path
from typing import Any

from torch import nn

from minillm.hub.configs import hf_config
from minillm.hub.families import family_of, filled, template
from minillm.hub.shards import INDEX, SINGLE, Tensors, cut, index_of, write_shard
from minillm.hub.state_dicts import check_finite, matched, to_hf
from minillm.nn.ops import Ops


def save_pretrained(
    model: nn.Module, folder: str | Path, *, max_shard_bytes: int = 5_000_000_000
) -> None:
    """Write config.json and model.safetensors for transformers' `from_pretrained(folder)`.

    More than `max_shard_bytes` of weights become several files and an index. All are written
    beside their places first and then renamed, the config last: a save that fails leaves an older
    checkpoint in `folder` as it was. Weights that are not finite are a ValueError.
    """
    config = json.dumps(hf_config(model), indent=2) + "\n"
    tensors = to_hf(model, tied=False)
    for name, tensor in tensors.items():
        check_finite(name, tensor)
    shards = cut(tensors, max_shard_bytes)
    texts = {} if SINGLE in shards else {INDEX: index_of(shards)}
    texts["config.json"] = config
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    temporary = {name: folder / f".{name}.{os.getpid()}.tmp" for name in (*shards, *texts)}
    try:
        for name, shard in shards.items():
            write_shard(shard, temporary[name])
        for name, text in texts.items():
            temporary[name].write_text(text, "utf-8")
        for name, path in temporary.items():
            os.replace(path, folder / name)
    finally:
        for path in temporary.values():
            path.unlink(missing_ok=True)
    _remove_others(folder, temporary)


def _remove_others(folder: Path, written: Container[str]) -> None:
    """Delete the weights of an older save under other names: they would be read in our place."""
    for path in (folder / SINGLE, folder / INDEX, *folder.glob("model-*-of-*.safetensors")):
        if path.name not in written:
            path.unlink(missing_ok=True)


def load_pretrained(folder: str | Path, *, ops: Ops | None = None) -> nn.Module:
    """Build the model a folder describes and fill it; returned in evaluation mode.

    The tensors are converted to PyTorch's default dtype. Settings, names, shapes, types and values
    are checked first: a ValueError names the file and what is wrong, and nothing was built.
    """
    config_file = Path(folder) / "config.json"
    if not config_file.is_file():
        raise ValueError(f"{config_file} is missing; a checkpoint folder has one")
    tensors = Tensors(folder)
    try:
        config = _read_config(config_file)
        family = family_of(config)
        numbers, empty = template(family, config, tensors)
    except ValueError as error:
        raise ValueError(f"{config_file}: {error}") from error
    try:
        values = matched(empty, tensors)
    except ValueError as error:
        raise ValueError(f"{tensors.file}: {error}") from error
    return filled(family, numbers, values, ops)


def _read_config(file: Path) -> dict[str, Any]:
    try:
        config = json.loads(file.read_text("utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"it is not JSON: {error}; copy it again") from error
    if not isinstance(config, dict):
        raise ValueError(f"it holds {config!r:.80}, not an object; copy it again")
    return config
