"""AdamW (Kingma and Ba 2015; Loshchilov and Hutter 2019), and which parameters decay.

With gradient g, step n counted from 1, learning rate η, weight decay λ:

    m ← β₁ m + (1 − β₁) g            v ← β₂ v + (1 − β₂) g²
    m̂ = m / (1 − β₁ⁿ)                v̂ = v / (1 − β₂ⁿ)
    θ ← θ − η λ θ − η m̂ / (√v̂ + ε)

The decay is *decoupled*: λθ never enters m and v. Added to the gradient instead (Adam with L2),
it would be divided by √v̂, and weights with large gradients would decay least.
"""

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn


class AdamW(torch.optim.Optimizer):
    """AdamW from scratch, equal to `torch.optim.AdamW` in every update.

    State per parameter: `step`, `exp_avg` (m) and `exp_avg_sq` (v), with torch's names, so a
    state dict moves between the two. A parameter without a gradient is left alone.
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        lr: float | int = 1e-3,
        betas: tuple[float | int, float | int] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float | int = 0.01,
    ):
        _check(lr, betas, eps, weight_decay)
        defaults = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One update from the gradients now in `.grad`."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, group)
        return loss

    def _update(self, parameter: Tensor, group: dict[str, Any]) -> None:
        gradient = parameter.grad
        if gradient.is_sparse:
            raise ValueError("a gradient is sparse; build the embedding with sparse=False")
        state = self.state[parameter]
        if not state:
            state["step"] = torch.tensor(0.0)
            state["exp_avg"] = torch.zeros_like(parameter)
            state["exp_avg_sq"] = torch.zeros_like(parameter)
        state["step"] += 1
        n, (beta1, beta2), lr = state["step"].item(), group["betas"], group["lr"]
        m, v = state["exp_avg"], state["exp_avg_sq"]

        parameter.mul_(1 - lr * group["weight_decay"])
        m.lerp_(gradient, 1 - beta1)
        v.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
        root = (v.sqrt() / math.sqrt(1 - beta2**n)).add_(group["eps"])
        parameter.addcdiv_(m, root, value=-lr / (1 - beta1**n))


def parameter_groups(model: nn.Module, weight_decay: float | int) -> list[dict[str, Any]]:
    """Two groups: matrices and embeddings decay; norm gains and biases, the vectors, do not.

    Shrinking a matrix limits how large a function it computes. Shrinking a norm's gain or a bias
    towards 0 only pushes it away from its neutral value. Frozen parameters are in neither group,
    and a tied parameter is in one, once.
    """
    if not isinstance(model, nn.Module):
        raise ValueError(f"model is {model!r:.60}; give the module itself, not its parameters")
    norms = {
        id(p)
        for module in model.modules()
        if "norm" in type(module).__name__.lower()
        for p in module.parameters(recurse=False)
    }
    decay, keep = [], []
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        exempt = parameter.dim() < 2 or id(parameter) in norms or name.split(".")[-1] == "bias"
        (keep if exempt else decay).append(parameter)
    if not decay and not keep:
        raise ValueError(
            f"{type(model).__name__} has no parameter that requires a gradient; unfreeze some"
        )
    groups = [
        {"params": decay, "weight_decay": weight_decay},
        {"params": keep, "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def adamw(
    model: nn.Module,
    lr: float | int,
    *,
    weight_decay: float | int = 0.1,
    betas: tuple[float | int, float | int] = (0.9, 0.95),
    eps: float = 1e-8,
    fused: bool | None = None,
) -> torch.optim.Optimizer:
    """AdamW over `parameter_groups(model, weight_decay)`; β₂ = 0.95 as GPT-3 used.

    `fused` picks torch's single-kernel version of the same update; by default it does so where
    all parameters are on a GPU.
    """
    _check(lr, betas, eps, weight_decay)
    groups = parameter_groups(model, weight_decay)
    if fused is None:
        fused = all(p.is_cuda for group in groups for p in group["params"])
    if fused:
        return torch.optim.AdamW(groups, lr=lr, betas=betas, eps=eps, fused=True)
    return AdamW(groups, lr=lr, betas=betas, eps=eps)


def _check(lr: float | int, betas: tuple, eps: float | int, weight_decay: float | int) -> None:
    numbers = {"lr": lr, "eps": eps, "weight_decay": weight_decay}
    for name, value in numbers.items():
        if not isinstance(value, float | int) and not isinstance(value, Tensor):
            raise ValueError(f"{name} is {value!r:.60}; give a number")
    if not isinstance(betas, tuple | list) or not all(isinstance(b, float | int) for b in betas):
        raise ValueError(f"betas are {betas!r:.60}; give two numbers: (0.9, 0.95)")
    if not (math.isfinite(lr) and lr >= 0):
        raise ValueError(f"lr is {lr}; give a finite rate of 0 or more, such as 1e-3")
    if len(betas) != 2 or not all(0 <= beta < 1 for beta in betas):
        raise ValueError(f"betas are {betas}; give two numbers from 0 to below 1: (0.9, 0.95)")
    if not (math.isfinite(eps) and eps >= 0):
        raise ValueError(f"eps is {eps}; give a small number of 0 or more, such as 1e-8")
    if not (math.isfinite(weight_decay) and weight_decay >= 0):
        raise ValueError(f"weight_decay is {weight_decay}; give a finite number of 0 or more")
