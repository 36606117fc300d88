"""Transformer blocks: attention and feed-forward on a residual stream, and where the norms stand.

All take their parts ready-made, so that a model is composed where it is defined.
"""

from collections.abc import Iterable
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


class SandwichNormBlock(nn.Module):
    """x ← x + norm′(attention(norm(x))), and so with ffn (Ding et al. 2021, CogView; Gemma 2).

    The second norm bounds what each part adds. The stream itself is never normalized, so a model
    of such blocks ends with one more norm. `dropout` acts on what each part adds, while training.
    """

    def __init__(
        self,
        attention: nn.Module,
        ffn: nn.Module,
        attention_norm: nn.Module,
        ffn_norm: nn.Module,
        attention_out_norm: nn.Module,
        ffn_out_norm: nn.Module,
        *,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.attention_norm, self.attention = attention_norm, attention
        self.attention_out_norm = attention_out_norm
        self.ffn_norm, self.ffn, self.ffn_out_norm = ffn_norm, ffn, ffn_out_norm
        self.dropout = nn.Dropout(dropout) if dropout > 0 else nn.Identity()

    def forward(self, x: Float[Tensor, "b t d"], **options: Any) -> Float[Tensor, "b t d"]:
        """Update the residual stream; `options` (mask, causal, cache …) go to the attention."""
        update = self.attention(self.attention_norm(x), **options)
        x = x + self.dropout(self.attention_out_norm(update))
        return x + self.dropout(self.ffn_out_norm(self.ffn(self.ffn_norm(x))))


class DeepNormBlock(nn.Module):
    """x ← norm(α x + attention(x)); x ← norm(α x + ffn(x)) (Wang et al. 2022, DeepNet).

    α > 1 gives the past more weight than the update. It goes with an initialization scaled by β:
    see `deepnorm_factors` and `init_deepnorm`. With α = 1 this is `PostNormBlock`.
    """

    def __init__(
        self,
        attention: nn.Module,
        ffn: nn.Module,
        attention_norm: nn.Module,
        ffn_norm: nn.Module,
        *,
        alpha: float | int,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if not 0 < alpha < float("inf"):
            raise ValueError(f"alpha must be a number above 0, got {alpha}: see deepnorm_factors")
        self.attention, self.attention_norm = attention, attention_norm
        self.ffn, self.ffn_norm = ffn, ffn_norm
        self.alpha = alpha
        self.dropout = nn.Dropout(dropout) if dropout > 0 else nn.Identity()

    def forward(self, x: Float[Tensor, "b t d"], **options: Any) -> Float[Tensor, "b t d"]:
        """Update the residual stream; `options` (mask, causal, cache …) go to the attention."""
        update = self.attention(x, **options)
        x = self.attention_norm(self.alpha * x + self.dropout(update))
        return self.ffn_norm(self.alpha * x + self.dropout(self.ffn(x)))


class ParallelBlock(nn.Module):
    """x ← x + attention(norm(x)) + ffn(norm(x)) (GPT-J; PaLM, Chowdhery et al. 2022, 2).

    Both parts read the same stream, so their matrix products can run together. One norm serves
    both; with `ffn_norm` each part has its own (GPT-NeoX, Falcon 40B). A model of such blocks ends
    with one more norm. `dropout` acts on what each part adds, while training.
    """

    def __init__(
        self,
        attention: nn.Module,
        ffn: nn.Module,
        attention_norm: nn.Module,
        ffn_norm: nn.Module | None = None,
        *,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.attention_norm, self.attention = attention_norm, attention
        self.ffn_norm, self.ffn = ffn_norm, ffn
        self.dropout = nn.Dropout(dropout) if dropout > 0 else nn.Identity()

    def forward(self, x: Float[Tensor, "b t d"], **options: Any) -> Float[Tensor, "b t d"]:
        """Update the residual stream; `options` (mask, causal, cache …) go to the attention."""
        y = self.attention_norm(x)
        z = y if self.ffn_norm is None else self.ffn_norm(x)
        return x + self.dropout(self.attention(y, **options)) + self.dropout(self.ffn(z))


def deepnorm_factors(
    *, encoder_layers: int = 0, decoder_layers: int = 0
) -> dict[str, tuple[float, float]]:
    """(α, β) of each stack by its depth: with N encoder and M decoder layers (DeepNet, figure 2),

    encoder alone ((2N)^¼, (8N)^-¼), decoder alone the same in M; together the encoder has
    (0.81 (N⁴M)^(1/16), 0.87 (N⁴M)^(-1/16)) and the decoder ((3M)^¼, (12M)^-¼).
    """
    n, m = encoder_layers, decoder_layers
    if min(n, m) < 0 or n + m == 0:
        raise ValueError(f"{n} encoder and {m} decoder layers: give the depth of one stack or both")
    if not m:
        return {"encoder": ((2 * n) ** 0.25, (8 * n) ** -0.25)}
    if not n:
        return {"decoder": ((2 * m) ** 0.25, (8 * m) ** -0.25)}
    both = (n**4 * m) ** (1 / 16)
    return {
        "encoder": (0.81 * both, 0.87 / both),
        "decoder": ((3 * m) ** 0.25, (12 * m) ** -0.25),
    }


def init_deepnorm(blocks: Iterable[nn.Module], beta: float | int) -> None:
    """Xavier-normal weights: gain β for ffn, value and output, 1 for query and key; biases 0.

    Scaling query and key would change how sharply attention looks, not how large its update is
    (DeepNet, figure 2).
    """
    for block in blocks:
        attention = block.attention
        gains = {attention.query: 1.0, attention.key: 1.0}
        gains |= dict.fromkeys((attention.value, attention.output, *block.ffn.modules()), beta)
        for part, gain in gains.items():
            if isinstance(part, nn.Linear):
                nn.init.xavier_normal_(part.weight, gain=gain)
                if part.bias is not None:
                    nn.init.zeros_(part.bias)
