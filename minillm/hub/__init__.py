"""Checkpoints of other libraries, in and out."""

from minillm.hub.folders import load_pretrained, save_pretrained
from minillm.hub.state_dicts import load_hf, to_hf

__all__ = ["load_hf", "load_pretrained", "save_pretrained", "to_hf"]
