"""A model as a folder that `transformers` reads and writes: config.json and model.safetensors."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import nn

from minillm.hub.safetensors_header import read_header
from minillm.hub.state_dicts import load_hf, to_hf
from minillm.models.gpt import gpt1, gpt2
from minillm.models.hub_format import HubFormat
from minillm.nn.ops import Ops

PRESETS: dict[str, Callable[..., nn.Module]] = {"openai-gpt": gpt1, "gpt2": gpt2}


def save_pretrained(model: nn.Module, folder: str | Path) -> None:
    """Write config.json and model.safetensors for transformers' `from_pretrained(folder)`."""
    config = hf_config(model)
    tensors = to_hf(model)
    for name in model.hub_format.tied:
        del tensors[name]
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", "utf-8")


def load_pretrained(folder: str | Path, *, ops: Ops | None = None) -> nn.Module:
    """Build the model a folder describes and fill it; returned in evaluation mode.

    The tensors are converted to PyTorch's default dtype.
    """
    config_file, tensor_file = (Path(folder) / n for n in ("config.json", "model.safetensors"))
    for file in (config_file, tensor_file):
        if not file.is_file():
            raise ValueError(f"{file} is missing; a checkpoint folder has both files")
    try:
        config = json.loads(config_file.read_text("utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{config_file} is not JSON: {error}; copy it again") from error
    read_header(tensor_file)
    tensors = load_file(tensor_file)
    if not isinstance(config, dict) or config.get("model_type") not in PRESETS:
        kind = config.get("model_type") if isinstance(config, dict) else config
        raise ValueError(f"model_type {kind!r} is not known here; known: {', '.join(PRESETS)}")
    preset = PRESETS[config["model_type"]]
    tiny = preset(vocab_size=1, max_seq_len=1, d_model=1, n_layers=1, n_heads=1)
    model = preset(ops=ops, **config_fields(tiny.hub_format, config))
    load_hf(model, tensors)
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


def config_fields(hub_format: HubFormat, config: Mapping[str, Any]) -> dict[str, Any]:
    """Return our config's fields from theirs; ValueError for a setting this model does not have."""
    for name, value in hub_format.fixed.items():
        if name in config and config[name] != value and name != "architectures":
            raise ValueError(f"{name}={config[name]!r} is not supported, only {value!r}")
    fields: dict[str, Any] = {}
    for theirs, ours in hub_format.config.items():
        if theirs not in config:
            continue
        if fields.setdefault(ours, config[theirs]) != config[theirs]:
            raise ValueError(
                f"{theirs}={config[theirs]!r} differs from {fields[ours]!r}; "
                f"this model has one {ours} for all"
            )
    return fields
