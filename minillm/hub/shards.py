"""The weights of a checkpoint folder: one safetensors file, or several and an index.

    model.safetensors   or   model-00001-of-00003.safetensors …, model.safetensors.index.json:
    {"metadata": {"total_size": bytes}, "weight_map": {tensor: file}}

Files are mapped into memory: a tensor's bytes are read when something is computed with them.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from minillm.hub.safetensors_header import bad, read_header

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"


class Tensors(Mapping[str, Tensor]):
    """The tensors of a folder by name, still on the disk; ValueError for files that do not fit.

    An index may name files of the same folder only, each tensor must lie in the file that it says,
    and no file may hold one that the index does not know.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.file = self.folder / SINGLE  # what messages name
        self.places: dict[str, Path] = {}
        if self.file.is_file():
            self._add(self.file)
        elif (self.folder / INDEX).is_file():
            self.file = self.folder / INDEX
            self._add_shards(_weight_map(self.file))
        else:
            raise ValueError(
                f"{self.file} is missing, and {INDEX} too; a checkpoint folder has one of them"
            )
        self._open: dict[Path, safe_open] = {}

    def _add(self, file: Path) -> None:
        names = read_header(file).keys() - {"__metadata__"}
        if twice := sorted(names & self.places.keys()):
            raise bad(file, f"{twice[0]} stands in {self.places[twice[0]].name}, too")
        self.places |= dict.fromkeys(names, file)

    def _add_shards(self, weight_map: Mapping[str, str]) -> None:
        for name in sorted(set(weight_map.values())):
            if not (self.folder / name).is_file():
                raise ValueError(f"{self.folder / name} is missing; {INDEX} names it")
            self._add(self.folder / name)
        found = {name: file.name for name, file in self.places.items()}
        for name in sorted(found.items() ^ weight_map.items()):
            raise ValueError(
                f"{self.file} and its files disagree about {name[0]}; copy all of them again"
            )

    def __getitem__(self, name: str) -> Tensor:
        file = self.places[name]
        try:
            if file not in self._open:
                self._open[file] = safe_open(file, "pt")
            return self._open[file].get_tensor(name)
        except (SafetensorError, OSError) as error:
            raise bad(file, str(error)) from error

    def __iter__(self) -> Iterator[str]:
        return iter(self.places)

    def __len__(self) -> int:
        return len(self.places)


def _weight_map(file: Path) -> dict[str, str]:
    """The index's map from tensor to file; only plain names of files in the same folder."""
    try:
        content = json.loads(file.read_text("utf-8"))
    except (ValueError, RecursionError, OSError) as error:
        raise ValueError(f"{file} is not JSON: {error}; copy it again") from error
    places = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(places, dict) or not places:
        raise ValueError(f"{file} has no weight_map from tensors to files; copy it again")
    for place in places.values():
        plain = isinstance(place, str) and Path(place).name == place and "\\" not in place
        if not plain or not place.endswith(".safetensors"):
            raise ValueError(f"{file} names {place!r:.80}, which is no file of its folder")
    return places


def cut(tensors: Mapping[str, Tensor], max_bytes: int) -> dict[str, dict[str, Tensor]]:
    """File name → its tensors, in order, at most `max_bytes` a file (or one larger tensor)."""
    if max_bytes < 1:
        raise ValueError(f"max_shard_bytes must be at least 1, got {max_bytes}; try 5_000_000_000")
    shards: list[dict[str, Tensor]] = [{}]
    room = max_bytes
    for name, tensor in tensors.items():
        if tensor.nbytes > room and shards[-1]:
            shards.append({})
            room = max_bytes
        shards[-1][name] = tensor
        room -= tensor.nbytes
    if len(shards) == 1:
        return {SINGLE: shards[0]}
    n = len(shards)
    return {f"model-{i:05}-of-{n:05}.safetensors": s for i, s in enumerate(shards, start=1)}


def index_of(shards: Mapping[str, Mapping[str, Tensor]]) -> str:
    """The content of `model.safetensors.index.json`."""
    size = sum(tensor.nbytes for shard in shards.values() for tensor in shard.values())
    places = {name: file for file, shard in shards.items() for name in shard}
    return json.dumps({"metadata": {"total_size": size}, "weight_map": places}, indent=2) + "\n"


def write_shard(tensors: Mapping[str, Tensor], file: Path) -> None:
    """Write one safetensors file, marked as PyTorch's."""
    with torch.no_grad():
        save_file(dict(tensors), file, metadata={"format": "pt"})
