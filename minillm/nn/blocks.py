"""Transformer blocks: attention and feed-forward on a residual stream, normalized after or before.

Both take their four parts ready-made, so that a model is composed where it is defined.
"""

from typing import Any

from jaxtyping import Float
from torch import Tensor, nn


class PostNormBlock(nn.Module):
    """x ← norm(x + attention(x)); x ← norm(x + ffn(x)) (Vaswani et al. 2017, 3.1; GPT-1, BERT).

    `dropout` acts on what each part adds, while training.
    """

    def __init__(
        self,
        attention: nn.Module,
        ffn: nn.Module,
        attention_norm: nn.Module,
        ffn_norm: nn.Module,
        *,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.attention, self.attention_norm = attention, attention_norm
        self.ffn, self.ffn_norm = ffn, ffn_norm
        self.dropout = nn.Dropout(dropout) if dropout > 0 else nn.Identity()

    def forward(self, x: Float[Tensor, "b t d"], **options: Any) -> Float[Tensor, "b t d"]:
        """Update the residual stream; `options` (mask, causal, cache …) go to the attention."""
        update = self.attention(x, **options)
        x = self.attention_norm(x + self.dropout(update))
        return self.ffn_norm(x + self.dropout(self.ffn(x)))


class PreNormBlock(nn.Module):
    """x ← x + attention(norm(x)); x ← x + ffn(norm(x)) (GPT-2, Radford et al. 2019, 2.3).

    The stream itself is never normalized, so a model of such blocks ends with one more norm.
    `dropout` acts on what each part adds, while training.
    """

    def __init__(
        self,
        attention: nn.Module,
        ffn: nn.Module,
        attention_norm: nn.Module,
        ffn_norm: nn.Module,
        *,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.attention_norm, self.attention = attention_norm, attention
        self.ffn_norm, self.ffn = ffn_norm, ffn
        self.dropout = nn.Dropout(dropout) if dropout > 0 else nn.Identity()

    def forward(self, x: Float[Tensor, "b t d"], **options: Any) -> Float[Tensor, "b t d"]:
        """Update the residual stream; `options` (mask, causal, cache …) go to the attention."""
        update = self.attention(self.attention_norm(x), **options)
        x = x + self.dropout(update)
        return x + self.dropout(self.ffn(self.ffn_norm(x)))
