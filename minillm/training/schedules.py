"""Learning-rate schedules: pure functions from a step to a multiplier of the base rate.

`schedule(step)` is asked before update number `step`, counted from 0. Warmup over w updates uses
1/w, 2/w, …, 1: the first update already moves. (Counting it as 0/w, as some libraries do, makes
the first update a no-op.)
"""

import math
from collections.abc import Callable

Schedule = Callable[[int], float]


def constant(warmup: int = 0) -> Schedule:
    """1, after a linear rise over `warmup` updates."""
    _check(steps=None, warmup=warmup)
    return lambda step: _rise(step, warmup)


def warmup_cosine(steps: int, warmup: int = 0, final: float = 0.1) -> Schedule:
    """Linear rise, then half a cosine from 1 to `final` (Loshchilov and Hutter 2017, no restarts).

    The last update, number steps − 1, uses exactly `final`; later ones too.
    """
    _check(steps, warmup, final)

    def schedule(step: int) -> float:
        if step < warmup:
            return _rise(step, warmup)
        return final + (1 - final) * (1 + math.cos(math.pi * _progress(step, warmup, steps))) / 2

    return schedule


def warmup_linear(steps: int, warmup: int = 0, final: float = 0.0) -> Schedule:
    """Linear rise, then a straight line from 1 to `final`."""
    _check(steps, warmup, final)

    def schedule(step: int) -> float:
        if step < warmup:
            return _rise(step, warmup)
        return 1 - (1 - final) * _progress(step, warmup, steps)

    return schedule


def noam(d_model: int, warmup: int) -> Schedule:
    """d_model^−½ · min(n^−½, n · warmup^−³ᐟ²) with n = step + 1 (Vaswani et al. 2017, eq. 3).

    It is the learning rate itself: use it with a base rate of 1. Counting n from 1 keeps step 0
    from dividing by zero.
    """
    if not isinstance(d_model, int) or not isinstance(warmup, int) or d_model < 1 or warmup < 1:
        raise ValueError(f"d_model is {d_model} and warmup {warmup}; both must be at least 1")
    return lambda step: d_model**-0.5 * min((step + 1) ** -0.5, (step + 1) * warmup**-1.5)


def wsd(steps: int, warmup: int, decay: int, final: float = 0.0) -> Schedule:
    """Warmup, stable, decay: rise, stay at 1, fall to `final` over the last `decay` updates.

    The stable part does not know when training ends, so a run can be continued from it, and the
    short decay run when a model is wanted (MiniCPM, Hu et al. 2024).
    """
    _check(steps, warmup, final)
    if not isinstance(decay, int) or not 1 <= decay <= steps - warmup:
        raise ValueError(
            f"decay is {decay}; give 1 to {steps - warmup} updates, what warmup leaves of {steps}"
        )

    def schedule(step: int) -> float:
        if step < steps - decay:
            return _rise(step, warmup)
        return 1 - (1 - final) * min(step - (steps - decay) + 1, decay) / decay

    return schedule


def _rise(step: int, warmup: int) -> float:
    return min(1.0, (step + 1) / warmup) if warmup else 1.0


def _progress(step: int, warmup: int, steps: int) -> float:
    """0 at the first update after warmup, 1 at the last one."""
    return min(1.0, (step - warmup) / max(1, steps - 1 - warmup))


def _check(steps: int | None, warmup: int, final: float = 0.0) -> None:
    for name, value in (("steps", steps), ("warmup", warmup)):
        if type(value) is not int and (name == "warmup" or value is not None):
            raise ValueError(f"{name} is {value!r:.60}; give a whole number of updates")
    if not isinstance(final, float | int):
        raise ValueError(f"final is {final!r:.60}; give a number from 0 to 1, such as 0.1")
    if steps is not None and steps < 1:
        raise ValueError(f"steps is {steps}; give at least 1")
    if warmup < 0 or (steps is not None and warmup >= steps):
        limit = "" if steps is None else f" and less than the {steps} steps"
        raise ValueError(f"warmup is {warmup}; give 0 or more{limit}")
    if not 0 <= final <= 1:
        raise ValueError(f"final is {final}; give a share of the base rate between 0 and 1")
