"""What a model's tensors and numbers are called in a Hugging Face checkpoint, as data."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from torch import Tensor


@runtime_checkable
class Layout(Protocol):
    """How one tensor of theirs holds several of ours, where that is not simply side by side."""

    def split(self, tensor: Tensor, config: Any) -> tuple[Tensor, ...]:
        """Ours from theirs, in the order of the names; ValueError where the shape is wrong."""
        ...

    def join(self, parts: tuple[Tensor, ...], config: Any) -> Tensor:
        """Theirs from ours, the inverse of `split`."""
        ...


@dataclass(frozen=True)
class Setting:
    """A setting of theirs whose value is written in another way than our field's.

    `read` makes ours from theirs (ValueError for a value that our model does not have), `write`
    theirs from ours.
    """

    field: str
    read: Callable[[Any], Any]
    write: Callable[[Any], Any]


@dataclass(frozen=True)
class HubFormat:
    """Their names on the left, ours on the right; `{i}` stands for every layer.

    - `keys`: a tuple means that their tensor is ours side by side, in this order. Names of ours
      that a model does not have are passed over (an output layer where it is tied, experts in a
      layer without).
    - `layouts`: endings of their names that hold ours in another way (heads interleaved, experts).
    - `transposed`: endings of their names whose matrices are stored (in, out).
    - `tied`: their names that repeat another tensor and may be missing; where the model has a
      tensor of its own for one (see `keys`), it is not tied.
    - `gather`: makes these names of a file that holds tensors in more pieces (experts one by one).
    - `obsolete`: endings of names in old files that carry no information.
    - `prefix`: what files of a bare model, without its output layer, leave out of every name.
    - `config`: their settings → our config's fields (or properties, which are then compared). A dot
      leads into an object: `rope_parameters.rope_theta`.
    - `fixed`: settings that must have this value, since our model knows no other. A tuple lists
      several that mean the same, the first of which is written.
    - `accepted`: the same, but not written; a function tells whether a value is fine.
    - `extra`: settings written for transformers' sake and not looked at when reading.
    - `aliases`: older names of their settings → the name used above.
    - `defaults`: what transformers assumes for a setting that is missing.
    """

    keys: Mapping[str, str | tuple[str, ...]]
    config: Mapping[str, str]
    fixed: Mapping[str, Any]
    layouts: Mapping[str, Layout] = field(default_factory=dict)
    transposed: tuple[str, ...] = ()
    tied: Mapping[str, str] = field(default_factory=dict)
    obsolete: tuple[str, ...] = ()
    prefix: str = ""
    gather: Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]] | None = None
    accepted: Mapping[str, Any] = field(default_factory=dict)
    extra: Mapping[str, Any] = field(default_factory=dict)
    aliases: Mapping[str, str] = field(default_factory=dict)
    defaults: Mapping[str, Any] = field(default_factory=dict)

    @property
    def architecture(self) -> str:
        """The name of transformers' class, or of GGUF's architecture."""
        named = self.fixed.get("architectures") or [self.fixed["general.architecture"]]
        return named[0]


# transformers 5 keeps the rotation's numbers in one object; files written before it do not.
ROPE_ALIASES = {
    "rope_theta": "rope_parameters.rope_theta",
    "rope_scaling.rope_type": "rope_parameters.rope_type",
    "rope_scaling.type": "rope_parameters.rope_type",
    **{
        f"rope_scaling.{name}": f"rope_parameters.{name}"
        for name in (
            "factor",
            "low_freq_factor",
            "high_freq_factor",
            "original_max_position_embeddings",
            "beta_fast",
            "beta_slow",
            "mscale",
            "mscale_all_dim",
        )
    },
}


def _labels_read(names: Any) -> int:
    if not isinstance(names, dict) or not names:
        raise ValueError(f"id2label={names!r:.60} is not an object with a name for each class")
    return len(names)


def _labels_written(n: int) -> dict[str, str]:
    return {str(i): f"LABEL_{i}" for i in range(n)}


# How many classes a head has: transformers stores their names.
LABELS = Setting("n_labels", _labels_read, _labels_written)


def format_of(model: Any) -> HubFormat:
    """The format that a model carries; ValueError for one that transformers has no class for."""
    found = getattr(model, "hub_format", None)
    if found is None:
        raise ValueError(
            f"this {type(model).__name__} has no counterpart in transformers, so no names to write "
            "or read its tensors by; save it with `training.checkpoint`, or give a hub_format"
        )
    return found
