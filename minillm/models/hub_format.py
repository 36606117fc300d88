"""What a model's tensors and numbers are called in a Hugging Face checkpoint, as data."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class HubFormat:
    """Their names on the left, ours on the right; `{i}` stands for every layer.

    `keys`: a tuple means that their tensor is ours side by side, in this order.
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
    transposed: tuple[str, ...] = ()
    tied: Mapping[str, str] = field(default_factory=dict)
    obsolete: tuple[str, ...] = ()
    prefix: str = ""
