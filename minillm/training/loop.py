"""The training loop: a generator that makes one update and yields one record, again and again.

Printing, plotting, progress bars, saving: all of that is the caller's, in the body of
`for record in train(...)`. Leaving that loop early leaves a usable model.

Gradients of several micro-batches are accumulated *by token*: the update uses
Σ losses ÷ Σ tokens, whatever the micro-batches' sizes, so it equals the update of one large
batch. Averaging the micro-batches' means instead gives a token in a short batch more weight than
one in a long batch.
"""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from minillm.nn.losses import cross_entropy
from minillm.nn.modes import evaluation_mode

LossFn = Callable[[nn.Module, Any], tuple[Tensor, int]]
"""(model, batch) → (summed loss, number of tokens it sums over)."""


@runtime_checkable
class Batches(Protocol):
    """Batches by number: `TokenWindows`, or a list with enough of them."""

    def __getitem__(self, index: int) -> Any: ...


@dataclass(frozen=True)
class Record:
    """What one update was like; `step` counts updates made, so resume with `start=record.step`."""

    step: int
    loss: float  # mean over this update's tokens, in nats, before the update
    lr: float
    grad_norm: float  # before clipping
    tokens: int
    seconds: float
    eval: float | None = None  # what `evaluate` returned, after the update


def next_token_loss(
    model: nn.Module,
    batch: tuple[Tensor, Tensor],
    cross_entropy: Callable[..., Tensor] = cross_entropy,
) -> tuple[Tensor, int]:
    """Summed cross-entropy of (inputs, targets), and the number of targets that count (≠ −100).

    For a fused cross-entropy: `partial(next_token_loss, cross_entropy=TORCH_OPS.cross_entropy)`.
    """
    inputs, targets = batch
    loss = cross_entropy(model(inputs), targets, reduction="sum")
    return loss, int((targets != -100).sum())


def train(
    model: nn.Module,
    batches: Batches,
    *,
    optimizer: torch.optim.Optimizer,
    steps: int,
    loss_fn: LossFn = next_token_loss,
    schedule: Callable[[int], float] | None = None,
    accumulate: int = 1,
    clip: float | int | None = 1.0,
    autocast: Callable[[], AbstractContextManager] | None = None,
    scaler: torch.amp.GradScaler | None = None,
    evaluate: Callable[[nn.Module], float] | None = None,
    evaluate_every: int | None = None,
    start: int = 0,
) -> Iterator[Record]:
    """Updates number `start` to `steps` − 1, one `Record` each.

    Update i uses batches i·accumulate … (i + 1)·accumulate − 1, so a resumed run sees the data in
    the same order.

    Args:
        model: trained in place, in training mode.
        batches: `batches[i]` is handed to `loss_fn`, its tensors moved to the model's device.
        optimizer: its present rates are the base rates that `schedule` multiplies.
        steps: number of updates of the whole run.
        loss_fn: returns the *summed* loss and the number of tokens.
        schedule: see `minillm.training.schedules`; None keeps the base rate.
        accumulate: micro-batches per update.
        clip: largest gradient norm; None does not clip (and still measures).
        autocast: makes the context of the forward pass, such as
            `lambda: torch.autocast("cuda", torch.bfloat16)`.
        scaler: loss scaling, for float16 only.
        evaluate: called without gradients and in evaluation mode, after the last update.
        evaluate_every: call it after every so many updates, too.
        start: updates made before, when resuming.

    Raises:
        ValueError: for arguments that make no sense, at once; for a loss or a gradient that is not
            finite, before the weights are touched.
    """
    _check_kinds(model, batches, optimizer)
    sizes = {"steps": steps, "accumulate": accumulate, "start": start}
    sizes |= {} if evaluate_every is None else {"evaluate_every": evaluate_every}
    for name, value in sizes.items():
        if type(value) is not int:
            raise ValueError(f"{name} is {value!r:.60}; give a whole number")
    functions = {"loss_fn": loss_fn, "schedule": schedule, "evaluate": evaluate}
    for name, value in (functions | {"autocast": autocast}).items():
        if not callable(value) and (value is not None or name == "loss_fn"):
            raise ValueError(f"{name} is {value!r:.60}; give a function")
    for name, value in (("steps", steps), ("accumulate", accumulate)):
        if value < 1:
            raise ValueError(f"{name} is {value}; give at least 1")
    if not 0 <= start <= steps:
        raise ValueError(f"start is {start}; give 0 to {steps}, the number of steps")
    if clip is not None and (not isinstance(clip, float | int) or not clip > 0):
        raise ValueError(f"clip is {clip}; give a positive gradient norm, or None not to clip")
    if evaluate_every is not None and (evaluate_every < 1 or evaluate is None):
        raise ValueError(f"evaluate_every is {evaluate_every}; give at least 1, and `evaluate`")
    if hasattr(batches, "__len__") and len(batches) < steps * accumulate:
        raise ValueError(
            f"{len(batches)} batches are too few for {steps} updates of {accumulate} each; "
            "give more, or fewer steps"
        )
    for group in optimizer.param_groups:
        group.setdefault("initial_lr", group["lr"])

    def evaluation(step: int) -> float | None:
        due = evaluate_every is not None and step % evaluate_every == 0
        return evaluated(model, evaluate) if evaluate and (due or step == steps) else None

    return _updates(
        model, batches, optimizer, range(start, steps), loss_fn, schedule or (lambda step: 1.0),
        accumulate, clip, autocast or nullcontext, scaler, evaluation,
    )  # fmt: skip


def _check_kinds(model: object, batches: object, optimizer: object) -> None:
    """Raise ValueError for a model, batches or an optimizer that is something else."""
    if not isinstance(model, nn.Module):
        raise ValueError(f"model is {model!r:.60}; give a module, such as gpt_tiny(256)")
    if not hasattr(batches, "__getitem__"):
        raise ValueError(
            f"batches is {batches!r:.60}; give TokenWindows, or a list: they are taken by number, "
            "so that a run can be resumed"
        )
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise ValueError(f"optimizer is {optimizer!r:.60}; write adamw(model, lr=1e-3)")


def evaluated(model: nn.Module, evaluate: Callable[[nn.Module], float]) -> float:
    """`evaluate(model)` without gradients and in evaluation mode; the mode is put back."""
    with evaluation_mode(model), torch.no_grad():
        return float(evaluate(model))


def clip_gradients(
    parameters: list[Tensor], limit: float | int | None, divide_by: float | int = 1
) -> float:
    """Gradients ÷ `divide_by`, then scaled down to a global norm of at most `limit`.

    Returns the norm before clipping. The norm is one number over all parameters: clipping each
    tensor by itself would change the direction of the update.
    """
    gradients = [p.grad for p in parameters if p.grad is not None]
    if not gradients:
        raise ValueError("no parameter has a gradient; does the loss depend on the model?")
    norms = torch._foreach_norm(gradients)
    norm = float(torch.linalg.vector_norm(torch.stack([n.double() for n in norms]))) / divide_by
    scale = 1 / divide_by
    if limit is not None and norm > limit:
        scale *= limit / norm
    if scale != 1 and math.isfinite(scale):
        torch._foreach_mul_(gradients, scale)
    return norm


def set_rate(optimizer: torch.optim.Optimizer, multiplier: float, step: int) -> None:
    """Set every group's rate to its base rate times `multiplier`, which must be finite and ≥ 0."""
    if not (math.isfinite(multiplier) and multiplier >= 0):
        raise ValueError(
            f"the schedule gives {multiplier} at step {step}; a multiplier is finite and not "
            "negative. The weights are as they were before this step"
        )
    for group in optimizer.param_groups:
        group["lr"] = group["initial_lr"] * multiplier


def _to(device: torch.device, batch: Any) -> Any:
    if isinstance(batch, Tensor):
        return batch.to(device, non_blocking=True)
    if isinstance(batch, dict):
        return {key: _to(device, value) for key, value in batch.items()}
    if hasattr(batch, "_fields"):  # a named tuple is made from its fields, not from a list
        return type(batch)(*(_to(device, value) for value in batch))
    if isinstance(batch, tuple | list):
        return type(batch)(_to(device, value) for value in batch)
    return batch


def _not_finite(what: str, value: float, step: int) -> ValueError:
    return ValueError(
        f"the {what} is {value} at step {step}; the weights are as they were before it. Go back to "
        "a checkpoint with a lower learning rate, a longer warmup or a smaller clip, or look at "
        f"the batches of step {step}"
    )


def _updates(
    model, batches, optimizer, numbers, loss_fn, schedule, accumulate, clip, autocast, scaler,
    evaluation,
) -> Iterator[Record]:  # fmt: skip
    """The algorithm, on one page."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    device = parameters[0].device
    for step in numbers:
        began = time.perf_counter()
        model.train()
        set_rate(optimizer, schedule(step), step)

        optimizer.zero_grad(set_to_none=True)
        summed, tokens = 0.0, 0
        for micro in range(step * accumulate, (step + 1) * accumulate):
            batch = _to(device, batches[micro])
            with autocast():
                loss, count = loss_fn(model, batch)
            (loss if scaler is None else scaler.scale(loss)).backward()
            summed, tokens = summed + loss.detach().double(), tokens + count
        if tokens == 0:
            raise ValueError(
                f"no token counts at step {step}: every target is ignored; drop such batches"
            )
        mean = float(summed) / tokens
        if not math.isfinite(mean):
            raise _not_finite("loss", mean, step)

        if scaler is not None:
            scaler.unscale_(optimizer)
        norm = clip_gradients(parameters, clip, divide_by=tokens)
        if scaler is not None:  # skips the update by itself when a gradient overflowed
            scaler.step(optimizer)
            scaler.update()
        elif math.isfinite(norm):
            optimizer.step()
        else:
            raise _not_finite("gradient norm", norm, step)

        evaluated_loss = evaluation(step + 1)
        rate = optimizer.param_groups[0]["lr"]
        seconds = time.perf_counter() - began
        yield Record(step + 1, mean, rate, norm, tokens, seconds, evaluated_loss)
