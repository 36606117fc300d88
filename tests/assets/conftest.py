"""Tiny packages made on the spot, offered to pip through a local folder: fast, and no network."""

import io
import json
import os
import stat
import sys
import tarfile
import zipfile
from dataclasses import asdict, dataclass, field
from pathlib import Path

import pytest

import minillm
from minillm.assets import ASSETS, Asset
from minillm.assets.archive import manifest

TEXTS = {"tiny_pkg/data/one.txt": b"one\n" * 100, "tiny_pkg/data/two.txt": b"two\n" * 50}


@dataclass
class Shelf:
    """A folder that pip looks into instead of an index, and the assets that the tests made."""

    folder: Path
    made: list[str] = field(default_factory=list)

    def wheel(self, files=None, *, name="tiny_pkg", links=()) -> Path:
        """Write a wheel of `files`, and of symbolic `links` (path, target)."""
        path = self.folder / f"{name}-1.0-py3-none-any.whl"
        info = f"{name}-1.0.dist-info"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as bundle:
            for member, data in (TEXTS if files is None else files).items():
                bundle.writestr(member, data)
            for member, target in links:
                entry = zipfile.ZipInfo(member)
                entry.external_attr = (stat.S_IFLNK | 0o777) << 16
                bundle.writestr(entry, target)
            bundle.writestr(
                f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n"
            )
            bundle.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
            bundle.writestr(f"{info}/RECORD", "")
        return path

    def sdist(self, files=None, *, name="tiny_pkg", extra=()) -> Path:
        """Write an sdist of `files`, with `extra` tar entries (name, type, link name)."""
        path = self.folder / f"{name}-1.0.tar.gz"
        root = f"{name}-1.0"
        with tarfile.open(path, "w:gz") as bundle:
            for member, data in {
                "setup.py": b"raise SystemExit",
                **(TEXTS if files is None else files),
            }.items():
                entry = tarfile.TarInfo(f"{root}/{member}")
                entry.size = len(data)
                bundle.addfile(entry, io.BytesIO(data))
            for member, kind, target in extra:
                entry = tarfile.TarInfo(f"{root}/{member}")
                entry.type, entry.linkname = kind, target
                bundle.addfile(entry)
        return path


@pytest.fixture
def shelf(tmp_path, monkeypatch):
    """An empty cache, no package index, and a local folder for pip."""
    folder = tmp_path / "shelf"
    folder.mkdir()
    for name in [n for n in os.environ if n.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("MINILLM_CACHE", str(tmp_path / "cache"))
    return Shelf(folder)


@pytest.fixture
def register(tmp_path, monkeypatch):
    """Put an asset of the tiny package into the registry, with its true hash unless told."""

    def add(texts=TEXTS, **changes):
        members = changes.get("members", ("tiny_pkg/data/*",))
        single = len(members) == 1 and "*" not in members[0]
        true = tmp_path / "truth"
        for member, data in texts.items():
            path = true / member.removeprefix("tiny_pkg/data/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        size = len(texts[members[0]]) if single else sum(map(len, texts.values()))
        sha = manifest(true / members[0].removeprefix("tiny_pkg/data/") if single else true)
        record = {
            "name": "tiny", "package": "tiny_pkg", "version": "1.0", "members": members,
            "strip": "tiny_pkg/data/", "sha256": sha, "license": "none", "size": size,
            "download": 1000, "note": "made by a test",
        }  # fmt: skip
        asset = Asset(**{**record, **changes})
        monkeypatch.setitem(ASSETS, asset.name, asset)
        return asset

    return add


@pytest.fixture
def leftovers(tmp_path):
    """What a failed fetch left in the cache, lock files aside."""

    def look():
        found = (tmp_path / "cache").rglob("*") if (tmp_path / "cache").is_dir() else ()
        return [p for p in found if not p.name.startswith(".lock-")]

    return look


DRIVER = """
import json, pathlib, sys
sys.path.insert(0, {root!r})
from minillm.assets import ASSETS, Asset, AssetError, cache, fetch
record = json.loads(sys.argv[1])
record["members"] = tuple(record["members"])
ASSETS["tiny"] = Asset(**record)
log, download = pathlib.Path(sys.argv[2]), cache.download
def logged(asset, folder):
    with log.open("a") as stream:
        stream.write("download\\n")
    return download(asset, folder)
cache.download = logged
{extra}
try:
    print(fetch("tiny"))
except AssetError as error:
    print(type(error).__name__, error)
    sys.exit(3)
"""


@pytest.fixture
def driver(tmp_path):
    """Arguments of a fresh process that fetches an asset and logs its downloads."""

    def build(asset, extra=""):
        script = tmp_path / "driver.py"
        root = str(Path(minillm.__file__).parents[1])
        text = DRIVER.replace("{extra}", extra).replace("{root!r}", repr(root))
        script.write_text(text, encoding="utf-8")
        log = tmp_path / "downloads.log"
        log.touch()
        return [sys.executable, str(script), json.dumps(asdict(asset)), str(log)], log

    return build
