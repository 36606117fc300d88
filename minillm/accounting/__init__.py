"""What a model costs, counted from its numbers alone."""

from minillm.accounting.params import (
    ParameterCount,
    attention_parameters,
    ffn_parameters,
    gpt_parameters,
    norm_parameters,
)

__all__ = [
    "ParameterCount",
    "attention_parameters",
    "ffn_parameters",
    "gpt_parameters",
    "norm_parameters",
]
