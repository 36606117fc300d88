"""Perplexity of a long text under a model with a short context, and bits per byte.

    nll = −Σⱼ log p(xⱼ | context of xⱼ)      perplexity = exp(nll / tokens)
    bits per byte = nll / (ln 2 · bytes)

A text longer than the context is read in windows that advance by `stride`. Each token is scored
once, in the first window that reaches it; the tokens before it in that window are context only.
A small stride gives every token more context and costs more forward passes.

Perplexities are per *token*, so those of two tokenizers cannot be compared; bits per byte can.
"""

import math
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor, nn

from minillm.nn.modes import evaluation_mode


@dataclass(frozen=True)
class Perplexity:
    """A summed negative log-likelihood in nats, and what it is a sum over."""

    nll: float
    n_tokens: int
    n_bytes: int | None = None

    @property
    def nll_per_token(self) -> float:
        """Mean negative log-likelihood, in nats."""
        return self.nll / self.n_tokens

    @property
    def perplexity(self) -> float:
        """e to the mean: as unsure as among this many equally likely tokens; inf beyond floats."""
        try:
            return math.exp(self.nll_per_token)
        except OverflowError:
            return math.inf

    @property
    def bits_per_token(self) -> float:
        """Bits an ideal coder spends on a token."""
        return self.nll_per_token / math.log(2)

    @property
    def bits_per_byte(self) -> float:
        """Bits an ideal coder spends on a byte of the text, whatever the tokenizer."""
        if self.n_bytes is None:
            raise ValueError("n_bytes is None; give the text's length in bytes to `perplexity`")
        return self.nll / math.log(2) / self.n_bytes


@torch.no_grad()
def perplexity(
    model: Callable[[Tensor], Tensor],
    tokens: Int[Tensor, " n"],
    *,
    max_seq_len: int,
    stride: int | None = None,
    n_bytes: int | None = None,
    batch_size: int = 1,
) -> Perplexity:
    """Every token after the first, scored once (token-weighted, strided).

    Begin `tokens` with the end-of-text token that training put before a document, and every token
    of the text itself is scored; then `n_bytes` is the length of the text.

    Args:
        model: ids "b t" → logits "b t v"; a module is put into evaluation mode meanwhile.
        tokens: ids of one text.
        max_seq_len: ids the model reads at once.
        stride: how far windows advance, 1 … max_seq_len (the default, no overlap).
        n_bytes: UTF-8 bytes of the scored text, for bits per byte.
        batch_size: windows of equal length computed together; changes the speed only.
    """
    stride = max_seq_len if stride is None else stride
    if not callable(model):
        raise ValueError(f"model is {model!r:.60}; give a function from ids to logits")
    _check(tokens, max_seq_len, stride, n_bytes, batch_size)
    windows = plan(len(tokens) - 1, max_seq_len, stride)
    with evaluation_mode(model) if isinstance(model, nn.Module) else nullcontext():
        nll = sum(
            _score(model, tokens, windows[i : i + batch_size], max_seq_len)
            for i in range(0, len(windows), batch_size)
        )
    if not math.isfinite(nll):
        raise ValueError(
            f"the negative log-likelihood is {nll}; the model's weights or logits are not finite"
        )
    return Perplexity(nll, len(tokens) - 1, n_bytes)


def plan(n: int, max_seq_len: int, stride: int) -> list[tuple[int, int, int]]:
    """Windows (begin, end, first): inputs begin … end − 1 are read, first … end − 1 scored.

    `n` inputs; the scored parts tile 0 … n − 1.
    """
    windows, scored = [], 0
    for begin in range(0, n, stride):
        end = min(begin + max_seq_len, n)
        windows.append((begin, end, scored))
        scored = end
        if end == n:
            break
    return windows


def _score(
    model: Callable[[Tensor], Tensor], tokens: Tensor, windows: list, max_seq_len: int
) -> float:
    """Summed nll of the windows' scored parts; only the last window can be shorter."""
    if len({end - begin for begin, end, _ in windows}) > 1:
        return _score(model, tokens, windows[:-1], max_seq_len) + _score(
            model, tokens, windows[-1:], max_seq_len
        )
    device = _device_of(model, tokens)
    read = torch.stack([tokens[begin : end + 1] for begin, end, _ in windows]).to(device).long()
    logits = model(read[:, :-1])
    _check_logits(logits, read)
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    losses = nn.functional.cross_entropy(logits.mT, read[:, 1:], reduction="none")
    return sum(
        float(row[first - begin :].double().sum())
        for row, (begin, _, first) in zip(losses, windows, strict=True)
    )


def _device_of(model: Callable[[Tensor], Tensor], tokens: Tensor) -> torch.device:
    parameter = next(model.parameters(), None) if isinstance(model, nn.Module) else None
    return tokens.device if parameter is None else parameter.device


def _check(
    tokens: Tensor, max_seq_len: int, stride: int, n_bytes: int | None, batch_size: int
) -> None:
    if not isinstance(tokens, Tensor):
        kind = type(tokens).__name__
        raise ValueError(f"tokens are of type {kind}; write `torch.tensor(tokens)`")
    if tokens.dim() != 1:
        raise ValueError(f"tokens have shape {tuple(tokens.shape)}; give one flat stream of ids")
    if tokens.is_floating_point() or tokens.is_complex() or tokens.dtype == torch.bool:
        raise ValueError(f"tokens have dtype {tokens.dtype}; token ids are integers")
    if len(tokens) < 2:
        raise ValueError(f"{len(tokens)} token(s) hold nothing to predict; give at least 2")
    if int(tokens.min()) < 0:
        raise ValueError(f"token id {int(tokens.min())} is negative; ids start at 0")
    sizes = {"max_seq_len": max_seq_len, "stride": stride, "batch_size": batch_size}
    sizes |= {} if n_bytes is None else {"n_bytes": n_bytes}
    for name, value in sizes.items():
        if type(value) is not int:
            raise ValueError(f"{name} is {value!r}; give a whole number")
    if max_seq_len < 1:
        raise ValueError(f"max_seq_len is {max_seq_len}; give at least 1")
    if not 1 <= stride <= max_seq_len:
        raise ValueError(f"stride is {stride}; give 1 to {max_seq_len}, or tokens would be skipped")
    if n_bytes is not None and n_bytes < 1:
        raise ValueError(f"n_bytes is {n_bytes}; give the length of the scored text in bytes")
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}; give at least 1")


def _check_logits(logits: Tensor, read: Tensor) -> None:
    """Raise ValueError unless each id read has a row of logits, and each target a place in it."""
    shape = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
    batch, length = read.shape
    if len(shape) != 3 or shape[:2] != (batch, length - 1):
        raise ValueError(
            f"the model gives {shape} for ids of shape {(batch, length - 1)}; it must give logits "
            "of shape (batch, length, vocabulary), so wrap it in a function that does"
        )
    if (largest := int(read.max())) >= shape[2]:
        raise ValueError(
            f"token id {largest} is outside the model's vocabulary of {shape[2]}; use the "
            "tokenizer that the model was built for"
        )
