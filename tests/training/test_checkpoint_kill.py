"""A process is killed (SIGKILL) in the middle of saving, many times: no checkpoint is ever lost."""

import os
import random
import signal
import subprocess
import sys
import time

import pytest
import torch
from torch import nn

from minillm.training import checkpoint

# One process that forks a saver for every line it reads: PyTorch is imported once.
SERVER = """
import os, sys
import torch
from torch import nn
from minillm.training import checkpoint

torch.set_num_threads(1)
path, size = sys.argv[1], int(sys.argv[2])
for line in sys.stdin:
    child = os.fork()
    if child == 0:
        step = int(line)
        while True:  # every weight of checkpoint n is n, so a mixture of two would show
            model = nn.Linear(size, size)
            for p in model.parameters():
                p.data.fill_(float(step))
            os.write(1, b"begin %d\\n" % step)
            checkpoint.save(path, model, step=step)
            os.write(1, b"saved %d\\n" % step)
            step += 1
    os.write(1, b"child %d\\n" % child)
    os.waitpid(child, 0)
    os.write(1, b"gone 0\\n")
"""


def value(path, size):
    """The step of the checkpoint, after checking that it is whole and of one piece."""
    model = nn.Linear(size, size)
    step = checkpoint.load(path, model)["step"]
    for p in model.parameters():
        assert torch.equal(p.detach(), torch.full_like(p, float(step)))
    return step


def rounds(path, size, inside, seed, wait):
    """For each kill: the last step acknowledged, the step found, was a save under way.

    Ends after `inside` kills that fell into a save. Every other kill lets one save finish first.
    """
    rng = random.Random(seed)
    command = [sys.executable, "-c", SERVER, str(path), str(size)]
    results, found = [], 0
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    ) as server:
        for kill in range(400):
            if sum(died for _, _, died in results) >= inside:
                break
            server.stdin.write(f"{found + 1}\n")
            last = {"saved": found}
            target = found + kill % 2
            while not ({"child", "begin"} <= last.keys() and last["saved"] >= target):
                word, number = server.stdout.readline().split()
                last[word] = int(number)
            time.sleep(rng.uniform(0, wait))
            os.kill(last["child"], signal.SIGKILL)
            while "gone" not in last:
                word, number = server.stdout.readline().split()
                last[word] = int(number)
            found = value(path, size) if path.exists() else 0
            results.append((last["saved"], found, last["begin"] > last["saved"]))
        server.stdin.close()
    return results


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL and fork")
@pytest.mark.parametrize(("size", "wait"), [(30, 0.02), (600, 0.08)])
def test_kill_in_the_middle_of_a_save(tmp_path, size, wait):
    path = tmp_path / "run" / "a.safetensors"
    results = rounds(path, size, 15, seed=size, wait=wait)
    for saved, found, _ in results:
        assert found in (saved, saved + 1)  # what was acknowledged is there; one more may be
    inside = sum(died for _, _, died in results)
    assert inside == 15, f"only {inside} of {len(results)} kills fell into a save"
    assert results[-1][1] >= len(results) // 2  # progress was made over the deaths


def test_wrong_version_writing_in_place_loses_the_checkpoint(tmp_path):
    """Why the rename: a file written in place and cut at any point is no checkpoint."""
    path = checkpoint.save(tmp_path / "a.safetensors", nn.Linear(30, 30), step=1)
    raw = path.read_bytes()
    for share in (0.0, 0.1, 0.5, 0.99):
        path.write_bytes(raw[: int(share * len(raw))])
        with pytest.raises(ValueError, match="not a usable"):
            checkpoint.load(path, nn.Linear(30, 30))
