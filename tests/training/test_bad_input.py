"""Wrong arguments get a ValueError that names them, also where nothing checks types at run time."""

import subprocess
import sys

SCRIPT = """
import torch
from minillm.models.gpt import gpt_tiny
from minillm.training import adamw, schedules, train

model = gpt_tiny(9, d_model=8, n_heads=2, n_layers=1)
batch = torch.zeros(1, 4, dtype=torch.long), torch.zeros(1, 4, dtype=torch.long)


def run(model=model, batches=[batch], optimizer=adamw(model, 1e-3), steps=1, **options):
    return lambda: train(model, batches, optimizer=optimizer, steps=steps, **options)


def tuned(**options):
    return lambda: adamw(model, **{"lr": 1e-3, **options})

CASES = [
    (run(model="gpt"), "model is 'gpt'; give a module"),
    (run(batches=3), "batches is 3; give TokenWindows, or a list"),
    (run(batches=iter([batch])), "taken by number, so that a run can be resumed"),
    (run(optimizer="adam"), "optimizer is 'adam'; write adamw(model, lr=1e-3)"),
    (run(steps="2"), "steps is '2'; give a whole number"),
    (run(steps=1.5), "steps is 1.5"),
    (run(accumulate=None), "accumulate is None"),
    (run(start="0"), "start is '0'"),
    (run(clip="1"), "clip is 1; give a positive"),
    (run(evaluate_every=1.5, evaluate=len), "evaluate_every is 1.5"),
    (run(schedule=3), "schedule is 3; give a function"),
    (run(loss_fn=None), "loss_fn is None"),
    (run(evaluate=3), "evaluate is 3"),
    (run(autocast=True), "autocast is True"),
    (tuned(lr="1"), "lr is '1'; give a number"),
    (tuned(eps=None), "eps is None"),
    (tuned(weight_decay="a"), "weight_decay is 'a'"),
    (tuned(betas=0.9), "betas are 0.9; give two numbers"),
    (tuned(betas=("a", "b")), "betas are ('a', 'b')"),
    (lambda: adamw(model.parameters(), 1e-3), "give the module itself, not its parameters"),
    (lambda: schedules.warmup_cosine("10"), "steps is '10'; give a whole number of updates"),
    (lambda: schedules.warmup_linear(10, None), "warmup is None"),
    (lambda: schedules.warmup_cosine(10, 1, "x"), "final is 'x'; give a number from 0 to 1"),
    (lambda: schedules.noam(64, None), "warmup None; both must be at least 1"),
    (lambda: schedules.wsd(10, 1, "3"), "decay is 3; give 1 to 9"),
]
for number, (call, message) in enumerate(CASES):
    try:
        call()
    except ValueError as error:
        assert message in str(error), f"case {number}: {message!r} is not in {error}"
    else:
        raise AssertionError(f"case {number}: no error, expected {message!r}")
print(len(CASES), "cases")
"""


def test_mistakes_are_named():
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "25 cases"
