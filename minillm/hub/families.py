"""The models that a checkpoint may hold: which preset builds it, found by what its config says."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from minillm.hub.configs import check_fixed
from minillm.models.encdec import EncDecConfig
from minillm.models.gpt import GPT1_FORMAT, GPT2_FORMAT, GPTConfig, gpt1, gpt2
from minillm.models.hub_format import HubFormat
from minillm.models.marian import MARIAN_FORMAT, marian


@dataclass(frozen=True)
class Family:
    """`preset(ops=, **fields of the config)` builds what `hub_format` describes."""

    preset: Callable[..., nn.Module]
    config: type
    hub_format: HubFormat

    @property
    def architecture(self) -> str:
        """The name of transformers' class."""
        return self.hub_format.fixed["architectures"][0]


# One entry a family. Several may share an architecture (Falcon 7B and 40B): the first whose fixed
# settings fit is taken, so the more particular stands first.
FAMILIES: tuple[Family, ...] = (
    Family(gpt1, GPTConfig, GPT1_FORMAT),
    Family(gpt2, GPTConfig, GPT2_FORMAT),
    Family(marian, EncDecConfig, MARIAN_FORMAT),
)


def family_of(config: Mapping[str, Any]) -> Family:
    """The family that a config.json describes; ValueError naming what is not known here.

    `model_type` decides, and `architectures` between several classes of one type.
    """
    kind, named = config.get("model_type"), config.get("architectures")
    found = [family for family in FAMILIES if family.hub_format.fixed["model_type"] == kind]
    if not found:
        known = dict.fromkeys(f.hub_format.fixed["model_type"] for f in FAMILIES)
        raise ValueError(f"model_type {kind!r:.80} is not known here; known: {', '.join(known)}")
    classes = named if isinstance(named, list) else []
    found = [family for family in found if family.architecture in classes] or found
    for family in found[:-1]:
        try:
            check_fixed(family.hub_format, config)
            return family
        except ValueError:
            continue
    return found[-1]
