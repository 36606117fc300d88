"""Decoder blocks: self-attention, cross-attention to the encoder's memory, feed-forward.

Both take their six parts ready-made, as the blocks of an encoder do. `memory` is what the
cross-attention takes: the encoder's output, or the keys and values that
`MultiHeadAttention.remember` has made of it once.
"""

from typing import Any

from jaxtyping import Bool, Float
from torch import Tensor, nn

Memory = Tensor | tuple[Tensor, Tensor]


class PostNormDecoderBlock(nn.Module):
    """x ← norm(x + f(x)) for f = self-attention, cross-attention, ffn (Vaswani et al. 2017, 3.1).

    `dropout` acts on what each part adds, while training.
    """

    def __init__(
        self,
        attention: nn.Module,
        cross_attention: nn.Module,
        ffn: nn.Module,
        attention_norm: nn.Module,
        cross_norm: nn.Module,
        ffn_norm: nn.Module,
        *,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.attention, self.attention_norm = attention, attention_norm
        self.cross_attention, self.cross_norm = cross_attention, cross_norm
        self.ffn, self.ffn_norm = ffn, ffn_norm
        self.dropout = nn.Dropout(dropout) if dropout > 0 else nn.Identity()

    def forward(
        self,
        x: Float[Tensor, "b t d"],
        memory: Memory,
        *,
        memory_mask: Bool[Tensor, "*#bh #t s"] | None = None,
        **options: Any,
    ) -> Float[Tensor, "b t d"]:
        """Update the stream; `options` (mask, causal, cache …) go to the self-attention."""
        x = self.attention_norm(x + self.dropout(self.attention(x, **options)))
        update = self.cross_attention(x, memory, mask=memory_mask)
        x = self.cross_norm(x + self.dropout(update))
        return self.ffn_norm(x + self.dropout(self.ffn(x)))


class PreNormDecoderBlock(nn.Module):
    """x ← x + f(norm(x)) for f = self-attention, cross-attention, ffn (Xiong et al. 2020).

    The stream itself is never normalized, so a stack of such blocks ends with one more norm. The
    memory is taken as it is: the encoder's own final norm has normalized it.
    `dropout` acts on what each part adds, while training.
    """

    def __init__(
        self,
        attention: nn.Module,
        cross_attention: nn.Module,
        ffn: nn.Module,
        attention_norm: nn.Module,
        cross_norm: nn.Module,
        ffn_norm: nn.Module,
        *,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.attention_norm, self.attention = attention_norm, attention
        self.cross_norm, self.cross_attention = cross_norm, cross_attention
        self.ffn_norm, self.ffn = ffn_norm, ffn
        self.dropout = nn.Dropout(dropout) if dropout > 0 else nn.Identity()

    def forward(
        self,
        x: Float[Tensor, "b t d"],
        memory: Memory,
        *,
        memory_mask: Bool[Tensor, "*#bh #t s"] | None = None,
        **options: Any,
    ) -> Float[Tensor, "b t d"]:
        """Update the stream; `options` (mask, causal, cache …) go to the self-attention."""
        x = x + self.dropout(self.attention(self.attention_norm(x), **options))
        update = self.cross_attention(self.cross_norm(x), memory, mask=memory_mask)
        x = x + self.dropout(update)
        return x + self.dropout(self.ffn(self.ffn_norm(x)))
