"""Hugging Face state dicts in and out of a model, by the key map that the model carries."""

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from minillm.models.hub_format import HubFormat, Layout, format_of


def expand(hub_format: HubFormat, n_layers: int, own: Container[str]) -> dict[str, tuple[str, ...]]:
    """Their tensor name → ours, several where theirs is ours side by side, for every layer.

    `own` are the names that the model has; a tensor of theirs with none of them is left out.
    """
    pairs = {}
    for theirs, ours in hub_format.keys.items():
        names = (ours,) if isinstance(ours, str) else ours
        for i in range(n_layers) if "{i}" in theirs else (0,):
            here = tuple(name.replace("{i}", str(i)) for name in names)
            if any(name in own for name in here):
                pairs[theirs.replace("{i}", str(i))] = here
    return pairs


@torch.no_grad()
def load_hf(model: nn.Module, state_dict: Mapping[str, Tensor]) -> None:
    """Copy a Hugging Face state dict into `model`: every tensor of both used exactly once.

    Values are converted to the type and device of the model. Nothing is copied unless all fits and
    all numbers are finite.
    """
    copy_in(model, matched(model, state_dict))


@torch.no_grad()
def matched(
    model: nn.Module, state_dict: Mapping[str, Tensor], hub_format: HubFormat | None = None
) -> dict[str, Tensor]:
    """Our name → its values in a Hugging Face state dict; ValueError unless all fits.

    Only names, shapes and types of `model` are used: it may lie on the meta device. `hub_format`
    is the model's unless given (GGUF files have names of their own).
    """
    hub_format, own = hub_format or format_of(model), model.state_dict()
    pairs = expand(hub_format, model.config.n_layers, own)
    if hub_format.gather is not None:
        state_dict = hub_format.gather(state_dict)
    given = _named_in_full(hub_format, state_dict, pairs)
    _check_names(pairs, given, own, hub_format)
    found: dict[str, Tensor] = {}
    for theirs, ours in pairs.items():
        shapes = [own[name].shape for name in ours]
        tensor = given[theirs].T if theirs.endswith(hub_format.transposed) else given[theirs]
        try:
            parts = _layout(hub_format, theirs, shapes).split(tensor, model.config)
            fits = [part.shape for part in parts] == shapes
        except (RuntimeError, ValueError):
            fits = False
        if not fits:
            raise ValueError(
                f"{theirs} has shape {tuple(given[theirs].shape)}, which does not fit "
                f"{' + '.join(f'{n} {tuple(own[n].shape)}' for n in ours)}; "
                "build the model with the numbers of the checkpoint's config.json"
            )
        check_finite(theirs, tensor, own[ours[0]].dtype)
        found |= zip(ours, parts, strict=True)
    return found


@dataclass(frozen=True)
class SideBySide:
    """The layout of most tensors: ours one below the other, `rows` of each; a `Layout`."""

    rows: tuple[int, ...]

    def split(self, tensor: Tensor, config: Any) -> tuple[Tensor, ...]:
        """Cut the first axis; RuntimeError unless its length is the sum of the rows."""
        return tensor.split(self.rows)

    def join(self, parts: tuple[Tensor, ...], config: Any) -> Tensor:
        """Stack along the first axis."""
        return torch.cat(parts)


def _layout(hub_format: HubFormat, theirs: str, shapes: Sequence[torch.Size]) -> Layout:
    """How their tensor of this name holds ours of these shapes."""
    given = (layout for end, layout in hub_format.layouts.items() if theirs.endswith(end))
    return next(given, SideBySide(tuple(shape[0] for shape in shapes)))


@torch.no_grad()
def copy_in(model: nn.Module, values: Mapping[str, Tensor]) -> None:
    """Copy what `matched` found into the model."""
    own = model.state_dict()
    for name, tensor in values.items():
        own[name].copy_(tensor)


def check_finite(name: str, tensor: Tensor, dtype: torch.dtype | None = None) -> None:
    """Raise ValueError unless all of `tensor` is finite, also as `dtype`."""
    finite = torch.isfinite(tensor.to(dtype or tensor.dtype))
    if not bool(finite.all()):
        bad = tensor[~finite]
        raise ValueError(
            f"{name} holds {len(bad)} times {bad[0].item()}, which is not finite"
            f"{'' if dtype is None else f' in {dtype}'}; use an earlier checkpoint"
        )


@torch.no_grad()
def to_hf(
    model: nn.Module, hub_format: HubFormat | None = None, *, tied: bool = True
) -> dict[str, Tensor]:
    """Return a Hugging Face state dict with copies of the model's tensors.

    Those that repeat another are included, as transformers' `state_dict` does, unless `tied` is
    False, as in its files. `hub_format` is the model's unless given.
    """
    hub_format, own = hub_format or format_of(model), model.state_dict()
    out = {}
    pairs = expand(hub_format, model.config.n_layers, own)
    for theirs, ours in pairs.items():
        parts = tuple(own[name] for name in ours)
        layout = _layout(hub_format, theirs, [part.shape for part in parts])
        tensor = layout.join(parts, model.config)
        tensor = tensor.T if theirs.endswith(hub_format.transposed) else tensor
        out[theirs] = tensor.clone(memory_format=torch.contiguous_format)
    repeated = _tied(hub_format, pairs) if tied else {}
    return out | {name: out[source] for name, source in repeated.items()}


def _tied(hub_format: HubFormat, pairs: Container[str]) -> dict[str, str]:
    """Their repeated tensors → the one repeated, without those that this model has of its own."""
    return {name: source for name, source in hub_format.tied.items() if name not in pairs}


def _named_in_full(
    hub_format: HubFormat, state_dict: Mapping[str, Tensor], pairs: Container[str]
) -> dict[str, Tensor]:
    """Drop obsolete entries, add a missing prefix, check types, check and drop tied copies."""
    given = {k: v for k, v in state_dict.items() if not k.endswith(hub_format.obsolete)}
    for name, tensor in given.items():
        if not isinstance(tensor, Tensor) or not tensor.is_floating_point():
            kind = tensor.dtype if isinstance(tensor, Tensor) else type(tensor).__name__
            raise ValueError(f"{name} is {kind}; weights are floating-point tensors, convert it")
    if not any(name.startswith(hub_format.prefix) for name in given):
        given = {k if k in hub_format.tied else hub_format.prefix + k: v for k, v in given.items()}
    for name, source in _tied(hub_format, pairs).items():
        copy = given.pop(name, None)
        if copy is not None and source in given and not torch.equal(copy, given[source]):
            raise ValueError(
                f"{name} differs from {source}, but this model ties them; "
                "the checkpoint belongs to a model with a separate output layer"
            )
    return given


def _check_names(
    pairs: Mapping[str, tuple[str, ...]],
    given: Mapping[str, Tensor],
    own: Mapping[str, Tensor],
    hub_format: HubFormat,
) -> None:
    """Raise ValueError unless the key map is a bijection between both sets of tensors."""
    ours = [name for names in pairs.values() for name in names]
    if sorted(ours) != sorted(own):
        raise ValueError(f"key map does not cover the model: {_some(set(ours) ^ set(own))}")
    missing, unknown = pairs.keys() - given.keys(), given.keys() - pairs.keys()
    if missing or unknown:
        raise ValueError(
            f"not a {hub_format.architecture} of this size: "
            f"missing {_some(missing)}; unknown {_some(unknown)}; check n_layers and the preset"
        )


def _some(names: Iterable[str]) -> str:
    names = sorted(names)
    return (
        ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "") or "none"
    )
