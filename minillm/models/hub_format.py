"""What a model's tensors and numbers are called in a Hugging Face checkpoint, as data."""

from collections.abc import Mapping
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
class HubFormat:
    """Their names on the left, ours on the right; `{i}` stands for every layer.

    `keys`: a tuple means that their tensor is ours side by side, in this order.
    `layouts`: endings of their names that hold ours in another way (heads interleaved, experts).
    `transposed`: endings of their names whose matrices are stored (in, out).
    `tied`: their names that repeat another tensor and may be missing.
    `obsolete`: endings of names in old files that carry no information.
    `prefix`: what files of a bare model, without its output layer, leave out of every name.
    `config`: their settings → our config's fields.
    `fixed`: settings that must have this value, since our model knows no other.
    """

    keys: Mapping[str, str | tuple[str, ...]]
    config: Mapping[str, str]
    fixed: Mapping[str, Any]
    layouts: Mapping[str, Layout] = field(default_factory=dict)
    transposed: tuple[str, ...] = ()
    tied: Mapping[str, str] = field(default_factory=dict)
    obsolete: tuple[str, ...] = ()
    prefix: str = ""
