"""Evaluation mode for a while: what measures a model leaves it as it found it."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Put `model` into evaluation mode; afterwards every part has the mode it had before.

    `model.train()` instead would also switch parts that are frozen in evaluation mode on purpose.
    """
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode
