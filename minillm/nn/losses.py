"""Losses over a vocabulary: cross-entropy with label smoothing, and the z-loss."""

from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


def cross_entropy(
    logits: Float[Tensor, "*n v"],
    targets: Int[Tensor, "*n"],
    *,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    reduction: Literal["mean", "sum", "none"] = "mean",
) -> Float[Tensor, "*m"]:
    """-Σᵥ q(v) log softmax(logits)ᵥ in nats, q = (1-ε) one-hot(target) + ε/V (Szegedy et al. 2016).

    Targets equal to `ignore_index` count neither above nor below the line: "mean" divides by the
    number of the others. The mean over no target at all is NaN, as in PyTorch; the sum is 0.
    Half precision is computed in float32.
    """
    check_loss(logits, targets, label_smoothing)
    log_p = logits.to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(dim=-1)
    kept = targets != ignore_index
    safe = targets.masked_fill(~kept, 0).long()
    try:
        nll = -log_p.gather(-1, safe[..., None]).squeeze(-1)
    except RuntimeError as error:
        raise out_of_range(targets, ignore_index, logits.shape[-1]) from error
    if label_smoothing > 0:
        nll = (1 - label_smoothing) * nll - label_smoothing * log_p.mean(dim=-1)
    nll = nll.masked_fill(~kept, 0.0)
    if reduction == "none":
        return nll
    if reduction == "sum":
        return nll.sum()
    if reduction == "mean":
        return nll.sum() / kept.sum()
    raise ValueError(f'reduction must be "mean", "sum" or "none", got {reduction!r}')


def z_loss(
    logits: Float[Tensor, "*n v"], keep: Bool[Tensor, "*n"] | None = None
) -> Float[Tensor, ""]:
    """⟨(log Σᵥ exp logits)²⟩, a mean, keeps logits from drifting (Chowdhery et al. 2022, sec. 5).

    PaLM adds 1e-4 times this to the loss. `keep` selects the positions that count.
    """
    square = logits.logsumexp(dim=-1).square()
    return square.mean() if keep is None else square[keep].mean()


def check_loss(logits: Tensor, targets: Tensor, label_smoothing: float) -> None:
    """Raise ValueError unless every row of logits has one integer target, and 0 ≤ ε ≤ 1."""
    if targets.dtype == torch.bool or targets.is_floating_point():
        raise ValueError(f"targets must be integer ids, got {targets.dtype}; write `ids.long()`")
    if not 0 <= label_smoothing <= 1:
        raise ValueError(f"label_smoothing must be in [0, 1], got {label_smoothing}")
    if logits.shape[:-1] != targets.shape:
        raise ValueError(
            f"logits {tuple(logits.shape)} need targets of shape {tuple(logits.shape[:-1])}, "
            f"got {tuple(targets.shape)}"
        )


def out_of_range(targets: Tensor, ignore_index: int, vocab_size: int) -> ValueError:
    """Return the error that names the smallest and the largest target."""
    real = targets[targets != ignore_index]
    return ValueError(
        f"targets must lie in 0 … {vocab_size - 1} or equal ignore_index {ignore_index}, "
        f"got {real.min().item()} … {real.max().item()}"
    )
