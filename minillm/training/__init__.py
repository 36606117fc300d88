"""The training loop, AdamW, schedules and checkpoints."""

from minillm.training import checkpoint, schedules
from minillm.training.loop import Record, clip_gradients, evaluated, next_token_loss, train
from minillm.training.optim import AdamW, adamw, parameter_groups

__all__ = [
    "AdamW",
    "Record",
    "adamw",
    "checkpoint",
    "clip_gradients",
    "evaluated",
    "next_token_loss",
    "parameter_groups",
    "schedules",
    "train",
]
