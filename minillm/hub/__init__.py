"""Checkpoints of other libraries, in and out."""

from minillm.hub.folders import load_pretrained, save_pretrained
from minillm.hub.gguf import GgufFile, read_metadata
from minillm.hub.gguf_models import load_gguf, save_gguf
from minillm.hub.load import load
from minillm.hub.state_dicts import load_hf, to_hf
from minillm.hub.vocabularies import load_tokenizer

__all__ = [
    "GgufFile",
    "load",
    "load_gguf",
    "load_hf",
    "load_pretrained",
    "load_tokenizer",
    "read_metadata",
    "save_gguf",
    "save_pretrained",
    "to_hf",
]
