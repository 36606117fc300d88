"""`load(name)`: a model and its tokenizer, by name, from the disk or from the Hugging Face hub."""

from pathlib import Path

from torch import nn

from minillm import assets
from minillm.hub.folders import load_pretrained
from minillm.hub.gguf_models import load_gguf
from minillm.hub.vocabularies import load_tokenizer
from minillm.nn.ops import Ops
from minillm.tokenizers import Tokenizer

MODELS = ("minilm-l6", "smollm2-135m-instruct")
# Weights as numbers only, never as Python objects (pickles), which may run code when read.
FILES = ["config.json", "*.safetensors", "*.safetensors.index.json",
         "tokenizer.json", "tokenizer.model", "vocab.txt"]  # fmt: skip


def load(
    name: str | Path, *, revision: str | None = None, ops: Ops | None = None
) -> tuple[nn.Module, Tokenizer]:
    """Return the model called `name`, in evaluation mode, and its tokenizer.

    `name` is an asset of the course ("smollm2-135m-instruct", a LLaMA; "minilm-l6", a sentence
    encoder), a folder, a `.gguf` file, or "owner/name" on the Hugging Face hub, where `revision`
    is a branch, tag or commit. The last needs a network once and the package `huggingface_hub`.
    ValueError says what is missing or not known here.
    """
    path = _found(str(name), revision)
    model = load_gguf(path, ops=ops) if path.suffix == ".gguf" else load_pretrained(path, ops=ops)
    return model, load_tokenizer(path)


def _found(name: str, revision: str | None) -> Path:
    """The folder or file that holds the model."""
    if name in MODELS:
        return assets.fetch(name)
    if name and Path(name).exists():
        return Path(name)
    if name.count("/") == 1 and all(name.split("/")) and not name.startswith((".", "~")):
        return _downloaded(name, revision)
    raise ValueError(
        f"there is no model {name!r:.80}: give one of {', '.join(MODELS)}, a folder, a .gguf "
        "file, or owner/name on the Hugging Face hub"
    )


def _downloaded(name: str, revision: str | None) -> Path:
    """The hub's files of `name` in its cache; nothing is fetched that is already there."""
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise ValueError(
            f"{name!r} is no folder here, and the Hugging Face hub needs a package: "
            "`pip install huggingface_hub`"
        ) from error
    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=FILES))
    except Exception as error:  # its errors have many bases: network, HTTP, validation, disk
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ValueError(
            f"{name!r} is no folder here and cannot be had from the Hugging Face hub: {reason:.200}"
        ) from error
