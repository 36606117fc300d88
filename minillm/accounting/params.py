"""Parameters of layers and models, counted from their numbers."""

from dataclasses import dataclass


def attention_parameters(
    d_model: int,
    n_heads: int,
    *,
    n_kv_heads: int | None = None,
    d_head: int | None = None,
    bias: bool = True,
) -> int:
    """2 d·h·p + 2 d·g·p weights (W_Q and W_O; W_K and W_V), and h·p + 2 g·p + d biases."""
    n_kv_heads = n_heads if n_kv_heads is None else n_kv_heads
    if d_head is None and d_model % n_heads:
        raise ValueError(
            f"d_model {d_model} is not divisible by n_heads {n_heads}; change one or give d_head"
        )
    d_head = d_model // n_heads if d_head is None else d_head
    wide, narrow = n_heads * d_head, n_kv_heads * d_head
    return 2 * d_model * (wide + narrow) + (wide + 2 * narrow + d_model if bias else 0)


def ffn_parameters(d_model: int, d_ff: int, *, bias: bool = True) -> int:
    """2 d·f weights (up and down) and f + d biases."""
    return 2 * d_model * d_ff + (d_ff + d_model if bias else 0)


def norm_parameters(d_model: int, *, bias: bool = True) -> int:
    """Scale and shift: 2 d, or d without the shift (RMSNorm)."""
    return 2 * d_model if bias else d_model


@dataclass(frozen=True)
class ParameterCount:
    """Parameters of a Transformer by part, over all layers; the output layer is the token table."""

    tokens: int
    positions: int
    attention: int
    ffn: int
    norms: int

    @property
    def total(self) -> int:
        """All parameters."""
        return self.tokens + self.non_embedding + self.positions

    @property
    def non_embedding(self) -> int:
        """All but token and position tables: the N of the scaling laws, about 12 L d²."""
        return self.attention + self.ffn + self.norms


def gpt_parameters(
    vocab_size: int,
    max_seq_len: int,
    d_model: int,
    n_layers: int,
    *,
    d_ff: int | None = None,
    final_norm: bool = True,
) -> ParameterCount:
    """V d + T d + L (4 d² + 4 d + 2 d f + f + d + 4 d) + 2 d, with f = 4 d unless given.

    The number of heads does not matter: h heads of width d/h cost what one of width d does.
    """
    d_ff = 4 * d_model if d_ff is None else d_ff
    return ParameterCount(
        tokens=vocab_size * d_model,
        positions=max_seq_len * d_model,
        attention=n_layers * attention_parameters(d_model, 1),
        ffn=n_layers * ffn_parameters(d_model, d_ff),
        norms=(2 * n_layers + final_norm) * norm_parameters(d_model),
    )
