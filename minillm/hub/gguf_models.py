"""Models out of GGUF files and into them, by the key map of each architecture."""

import os
from collections.abc import Mapping
from typing import Any

from torch import nn

from minillm.hub.configs import settings_of
from minillm.hub.families import Family, filled, template
from minillm.hub.gguf import GgufFile
from minillm.hub.gguf_write import write_gguf
from minillm.hub.state_dicts import matched, to_hf
from minillm.models.hub_format import HubFormat, format_of
from minillm.models.llama import LLAMA_FORMAT, LlamaConfig, llama
from minillm.models.llama_gguf import LLAMA_GGUF
from minillm.nn.ops import Ops
from minillm.quantization.gguf_blocks import FORMATS, format_named

# `general.architecture` → what builds it
ARCHITECTURES: dict[str, Family] = {"llama": Family(llama, LlamaConfig, LLAMA_GGUF)}
# and which models are written so: those with this key map for transformers
FORMATS_OF: dict[str, HubFormat] = {"llama": LLAMA_FORMAT}


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


def save_gguf(
    model: nn.Module,
    path: str | os.PathLike,
    *,
    kind: str = "F32",
    metadata: Mapping[str, Any] | None = None,
) -> None:
    """Write a model as a GGUF file that llama.cpp and transformers read.

    Matrices are stored in format `kind` ("F16", "Q8_0", "Q4_1", …; see `quantization.gguf_blocks`),
    vectors in F32 as everywhere. `metadata` are entries to add, such as those of a tokenizer.
    Read back, the numbers must be the model's: a config that the format cannot say is a ValueError.
    """
    name = next((n for n, f in FORMATS_OF.items() if f is model.hub_format), None)
    if name is None:
        raise ValueError(
            f"a {format_of(model).architecture} cannot be written as GGUF here; only "
            f"{', '.join(f.architecture for f in FORMATS_OF.values())} can"
        )
    hub_format = ARCHITECTURES[name].hub_format
    entries = settings_of(hub_format, model.config)
    del entries["tied"]  # the tensors tell
    chosen = format_named(kind)
    tensors = {
        key: (tensor, chosen if tensor.ndim > 1 else FORMATS["F32"])
        for key, tensor in to_hf(model, hub_format, tied=False).items()
    }
    write_gguf(path, {**entries, **(metadata or {})}, tensors)


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
