"""Run one worker process shut off from the rest: bubblewrap where it works, plain limits where not.

With bubblewrap a submission sees a read-only Python, an empty home of a few megabytes and nothing
else: no network, no other processes, no file of the person who grades. Without it, it runs as that
person, held back only by what the worker refuses; grade only people you trust that way.
"""

import functools
import os
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]
SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/etc/ld.so.cache", "/etc/localtime")
START = (
    "import sys; sys.path.insert(0, {root!r}); from minillm.exercises.worker import main; main()"
)


@dataclass(frozen=True)
class Limits:
    """What one submission may use: seconds in all and for one cell or check; sizes in bytes."""

    seconds: float | int = 180
    cell_seconds: float | int = 30
    memory: int = 4 << 30
    files: int = 64 << 20
    output: int = 4 << 20
    notebook: int = 20 << 20


@dataclass(frozen=True)
class Ended:
    """What a worker said, and how it came to its end: its exit code, or why it was stopped."""

    said: bytes
    code: int
    stopped: str = ""


def run(job: bytes, limits: Limits, *, boxed: bool) -> Ended:
    """Start a worker, hand it `job`, and listen until it ends or has to be stopped."""
    with tempfile.TemporaryDirectory(prefix="minillm-grade-") as folder:
        box = str(Path(folder).resolve())
        process = subprocess.Popen(
            command(box, limits, boxed=boxed),
            cwd=box,
            env=environment(box),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        threading.Thread(target=feed, args=(process, job), daemon=True).start()
        try:
            said, stopped = listen(process, limits)
        finally:
            kill(process)
        return Ended(said, process.returncode, stopped)


def command(box: str, limits: Limits, *, boxed: bool) -> list[str]:
    """The worker's command line, inside bubblewrap if `boxed`."""
    python = [sys.executable, "-I", "-B", "-c", START.format(root=str(PACKAGE.parent))]
    if not boxed:
        return python
    size = ["--size", str(limits.files), "--tmpfs"]
    words = ["bwrap", "--unshare-all", "--die-with-parent", "--new-session", "--cap-drop", "ALL"]
    words += ["--proc", "/proc", "--dev", "/dev", *size, "/tmp"]
    for path in visible():
        words += ["--ro-bind-try", path, path]
    return [*words, *size, box, "--chdir", box, "--", *python]


def visible() -> list[str]:
    """What a sandbox shows, read-only: the system's programs, this Python, this package, assets."""
    paths = [*SYSTEM, sys.base_prefix, sys.prefix, str(PACKAGE), str(cache())]
    paths += [p for p in sys.path if "site-packages" in p or "dist-packages" in p]
    real = [os.path.realpath(sys.executable), os.path.realpath(sys.base_prefix)]
    shown: list[str] = []
    for path in [*paths, *real]:
        inside = any(path == other or path.startswith(other + "/") for other in shown)
        if path not in ("", "/") and not inside:
            shown.append(path)
    return shown


def cache() -> Path:
    """Where pinned assets lie on this machine: a notebook may read those that are there already."""
    default = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "minillm"
    return Path(os.environ.get("MINILLM_CACHE") or default).absolute()


def environment(box: str) -> dict[str, str]:
    """The worker's environment: nothing of the grading person's."""
    names = ("HOME", "TMPDIR", "MPLCONFIGDIR", "XDG_CACHE_HOME")
    fixed = {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "USER": "learner", "MPLBACKEND": "Agg"}
    numbers = {"OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "0", "MINILLM_SCALE": "quick"}
    own = {"MINILLM_CACHE": str(cache()), "CUDA_VISIBLE_DEVICES": ""}
    return dict.fromkeys(names, box) | fixed | numbers | own


@functools.cache
def works() -> bool:
    """Whether bubblewrap is installed and may make a sandbox on this machine."""
    if not shutil.which("bwrap"):
        return False
    with tempfile.TemporaryDirectory(prefix="minillm-grade-") as box:
        probe = f"import sys; sys.path.insert(0, {str(PACKAGE.parent)!r}); import minillm"
        trial = [*command(box, Limits(), boxed=True)[:-1], probe]
        try:
            done = subprocess.run(trial, capture_output=True, timeout=30, env=environment(box))
        except (OSError, subprocess.TimeoutExpired):
            return False
    return done.returncode == 0


def feed(process: subprocess.Popen, job: bytes) -> None:
    """Write the job to the worker; one that died early does not matter here."""
    try:
        process.stdin.write(job)
        process.stdin.close()
    except (OSError, ValueError):
        pass


def listen(process: subprocess.Popen, limits: Limits) -> tuple[bytes, str]:
    """Read what the worker says until it ends, takes too long or says too much."""
    deadline, said = time.monotonic() + limits.seconds, bytearray()
    pipe = process.stdout.fileno()
    with selectors.DefaultSelector() as ready:
        ready.register(pipe, selectors.EVENT_READ)
        while (left := deadline - time.monotonic()) > 0:
            if not ready.select(min(left, 1.0)):
                continue
            chunk = os.read(pipe, 1 << 16)
            if not chunk:
                return bytes(said), finished(process)
            said += chunk
            if len(said) > limits.output:
                return bytes(said[: limits.output]), "it wrote too much"
    return bytes(said), f"it took longer than {limits.seconds:g} s"


def finished(process: subprocess.Popen) -> str:
    """Wait a moment for a worker that has said its last; say so if it goes on."""
    try:
        process.wait(5.0)
    except subprocess.TimeoutExpired:
        return "it went on after closing its output"
    return ""


def kill(process: subprocess.Popen) -> None:
    """End the worker and everything in its session."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.wait()
    for pipe in (process.stdin, process.stdout):
        try:
            pipe.close()
        except OSError:
            pass
