"""Refuse, inside the worker, what no exercise needs: network, programs, others' files, frames.

An audit hook cannot be taken out again, but native code goes past it. It is the second line behind
the sandbox, and the only one where there is no bubblewrap.
"""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

# Events by their first word, or in full; see "Audit events table" in Python's documentation.
NETWORK = {"socket.connect", "socket.bind", "socket.sendto", "socket.getaddrinfo", "socket.sendmsg"}
PROGRAMS = {
    "subprocess.Popen", "os.system", "os.fork", "os.forkpty", "os.exec", "os.posix_spawn",
    "os.spawn", "os.startfile", "pty.spawn", "os.kill", "os.killpg",
}  # fmt: skip
CHANGES = {
    "os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.link", "os.symlink", "os.truncate",
    "os.chmod", "os.chown", "os.utime", "os.setxattr", "shutil.rmtree", "shutil.move",
}  # fmt: skip
LOOKS_INSIDE = {
    "sys._getframe", "sys._current_frames", "sys._getframemodulename", "sys.settrace",
    "sys.setprofile", "sys.addaudithook", "gc.get_objects", "gc.get_referrers", "gc.get_referents",
    "ctypes.dlopen", "ctypes.dlsym", "object.__getattr__", "object.__setattr__",
}  # fmt: skip
# Functions of Python's library that look on behalf of whoever called them.
ON_BEHALF = {"currentframe", "stack", "walk_stack", "extract_stack", "<lambda>", "trace"}
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


class Fence:
    """What a submission may do: write in its `box`, and not read below the `hidden` folders."""

    def __init__(self, box: str, hidden: list[str]):
        self.box = os.path.realpath(box)
        self.hidden = tuple(os.path.realpath(path) for path in hidden)
        house = [sys.prefix, sys.base_prefix, str(Path(__file__).parents[1]), "<frozen", "<checks"]
        self.trusted = (*house, *(os.path.realpath(path) for path in house[:3]))
        self.rules: dict[str, Callable[[tuple], str]] = {"open": self.opens}
        self.rules |= dict.fromkeys(NETWORK, lambda _: "the network is out of reach")
        self.rules |= dict.fromkeys(PROGRAMS, lambda _: "other programs are out of reach")
        self.rules |= dict.fromkeys(CHANGES, self.changes)
        self.rules |= dict.fromkeys(("os.listdir", "os.scandir"), self.lists)

    def raise_(self) -> None:
        """Put the fence up, for good."""
        rules, trusted, busy = {**self.rules}, self.trusted, []
        frame, looks_inside, on_behalf = sys._getframe, {*LOOKS_INSIDE}, {*ON_BEHALF}

        def hook(event: str, args: tuple) -> None:
            if busy or (event not in rules and event not in looks_inside):
                return
            busy.append(True)
            try:
                if event in looks_inside:
                    code = frame(1).f_code
                    if code.co_name in on_behalf and code.co_filename.startswith(trusted):
                        code = frame(2).f_code
                    inside = code.co_filename.startswith(trusted)
                    why = "" if inside else "this look inside Python is out of reach"
                else:
                    why = rules[event](args)
            finally:
                busy.clear()
            if why:
                raise PermissionError(f"{why} while a submission is graded ({event})")

        sys.addaudithook(hook)

    def opens(self, args: tuple) -> str:
        """Why a file may not be opened; empty if it may."""
        path, _, flags = args
        where = self.place(path)
        if any(self.below(where, folder) for folder in self.hidden):
            return "the solutions are out of reach"
        return self.outside(where) if isinstance(flags, int) and flags & WRITING else ""

    def lists(self, args: tuple) -> str:
        """Why a folder may not be listed; empty if it may."""
        where = self.place(args[0] or ".")
        hidden = any(self.below(where, folder) for folder in self.hidden)
        return "the solutions are out of reach" if hidden else ""

    def changes(self, args: tuple) -> str:
        """Why a file may not be changed; empty if it may."""
        paths = [arg for arg in args if isinstance(arg, str | bytes | os.PathLike)]
        return next((why for p in paths if (why := self.outside(self.place(p)))), "")

    def outside(self, where: str) -> str:
        """Why nothing may be written at `where`; empty if it lies in the box."""
        if where in ("", "/dev/null") or self.below(where, self.box):
            return ""
        return "files outside the working folder are out of reach"

    @staticmethod
    def place(path: Any) -> str:
        """The real absolute path; empty for a descriptor that is open already."""
        if isinstance(path, int) or path is None:
            return ""
        return os.path.realpath(os.fsdecode(path))

    @staticmethod
    def below(path: str, folder: str) -> bool:
        """Whether `path` is `folder` or lies in it."""
        return path == folder or path.startswith(folder + os.sep)
