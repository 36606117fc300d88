"""Models out of GGUF files and into them, by the key map of each architecture."""

import os
from collections.abc import Mapping
from typing import Any

from torch import nn

from minillm.hub.families import Family, filled, template
from minillm.hub.gguf import GgufFile
from minillm.hub.state_dicts import matched
from minillm.models.llama import LlamaConfig, llama1
from minillm.models.llama_gguf import LLAMA_GGUF
from minillm.nn.ops import Ops

# `general.architecture` → what builds it
ARCHITECTURES: dict[str, Family] = {"llama": Family(llama1, LlamaConfig, LLAMA_GGUF)}


def load_gguf(path: str | os.PathLike, *, ops: Ops | None = None) -> nn.Module:
    """Build the model in a GGUF file, its weights decoded to PyTorch's default dtype.

    Everything is checked first, as in `load_pretrained`; returned in evaluation mode.
    """
    file = GgufFile(path)
    try:
        family = _family(file.metadata)
        numbers, empty = template(family, _settings(file, family), file)
        values = matched(empty, file, family.hub_format)
    except ValueError as error:
        raise ValueError(f"{str(file.path)!r} cannot be loaded: {error}") from error
    return filled(family, numbers, values, ops)


def _family(metadata: Mapping[str, Any]) -> Family:
    name = metadata.get("general.architecture")
    if not isinstance(name, str) or name not in ARCHITECTURES:
        known = ", ".join(ARCHITECTURES)
        raise ValueError(f"general.architecture {name!r:.40} is not known here; known: {known}")
    return ARCHITECTURES[name]


def _settings(file: GgufFile, family: Family) -> dict[str, Any]:
    """The metadata, with what only the tensors tell: is the output layer tied, how many tokens."""
    told: dict[str, Any] = {"tied": not any(name in file for name in family.hub_format.tied)}
    tokens = next(iter(family.hub_format.keys))
    if tokens in file:
        told[f"{family.hub_format.architecture}.vocab_size"] = file.infos[tokens].shape[0]
    return {**told, **file.metadata}
