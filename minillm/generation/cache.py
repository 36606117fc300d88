"""Keys and values of the tokens already read, so that a step adds one row of attention."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn


class ContiguousLayer:
    """One layer's keys and values, written side by side into a buffer allocated once."""

    def __init__(self, keys: Float[Tensor, "b g s p"], values: Float[Tensor, "b g s p"]):
        self.keys, self.values = keys, values
        self.length = 0

    def append(
        self, k: Float[Tensor, "b g t p"], v: Float[Tensor, "b g t p"]
    ) -> tuple[Float[Tensor, "b g s p"], Float[Tensor, "b g s p"]]:
        """Store t new keys and values; return all s = length + t, views of the buffer."""
        start, end = self.length, self.length + k.shape[2]
        batch, n_kv_heads, capacity, d_head = self.keys.shape
        if end > capacity:
            raise ValueError(
                f"the cache has room for {capacity} tokens, holds {start} and was given "
                f"{end - start} more: build it with a larger max_seq_len, or roll it back"
            )
        if k.shape != (batch, n_kv_heads, end - start, d_head):
            raise ValueError(
                f"keys of shape {tuple(k.shape)} do not fit a cache for batch {batch} with "
                f"{n_kv_heads} key/value heads of size {d_head}: build it with "
                f"ContiguousCache.for_model(model, batch={k.shape[0]})"
            )
        if k.dtype != self.keys.dtype and not torch.is_autocast_enabled(k.device.type):
            raise ValueError(
                f"keys of type {k.dtype} do not fit a cache of {self.keys.dtype}: build it with "
                f"dtype={k.dtype}, or by ContiguousCache.for_model(model)"
            )
        self.keys.narrow(2, start, end - start).copy_(k)
        self.values.narrow(2, start, end - start).copy_(v)
        self.length = end
        return self.keys.narrow(2, 0, end), self.values.narrow(2, 0, end)


class ContiguousCache:
    """2 · n_layers · b · n_kv_heads · max_seq_len · d_head numbers in one buffer; a `Cache`."""

    def __init__(
        self,
        n_layers: int,
        batch: int,
        n_kv_heads: int,
        max_seq_len: int,
        d_head: int,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ):
        sizes = {
            "n_layers": n_layers,
            "batch": batch,
            "n_kv_heads": n_kv_heads,
            "max_seq_len": max_seq_len,
            "d_head": d_head,
        }
        for name, size in sizes.items():
            if not isinstance(size, int) or isinstance(size, bool) or size < 1:
                raise ValueError(f"{name} is {size!r}: a cache needs a whole number, at least 1")
        buffer = torch.zeros(
            2, n_layers, batch, n_kv_heads, max_seq_len, d_head, dtype=dtype, device=device
        )
        self.layers = [ContiguousLayer(buffer[0, i], buffer[1, i]) for i in range(n_layers)]
        self.n_layers, self.max_seq_len, self.batch = n_layers, max_seq_len, batch

    @classmethod
    def for_model(
        cls, model: nn.Module, batch: int = 1, max_seq_len: int | None = None
    ) -> "ContiguousCache":
        """A cache of the shape, type and device that `model` writes, as long as its context."""
        config, weight = model.config, next(model.parameters())
        return cls(
            config.n_layers,
            batch,
            config.n_kv_heads,
            config.max_seq_len if max_seq_len is None else max_seq_len,
            config.d_head,
            weight.dtype,
            weight.device,
        )

    @property
    def length(self) -> int:
        """Tokens that every layer has stored: it grows when the last layer of a pass appends."""
        return min([layer.length for layer in self.layers])

    def __getitem__(self, layer: int) -> ContiguousLayer:
        """The cache of one layer."""
        return self.layers[layer]

    def rollback(self, length: int) -> None:
        """Forget the tokens from `length` on in all layers (a rejected draft, an edited prompt)."""
        if not isinstance(length, int) or not 0 <= length <= self.length:
            raise ValueError(
                f"cannot roll back to {length!r} tokens: the cache holds {self.length}, use a "
                "whole number from 0 to that"
            )
        for layer in self.layers:
            layer.length = length

    def reorder(self, rows: Int[Tensor, " b"]) -> None:
        """Row i becomes what row `rows[i]` was, in all layers (the beams of a search move)."""
        if not isinstance(rows, Tensor) or rows.is_floating_point():
            raise ValueError(f"rows is {rows!r:.60}: write torch.tensor(rows), whole numbers")
        if rows.shape != (self.batch,) or not 0 <= int(rows.min()) <= int(rows.max()) < self.batch:
            raise ValueError(
                f"rows is {rows.tolist()}: give {self.batch} numbers, each 0 to {self.batch - 1}"
            )
        for layer in self.layers:
            used = slice(0, layer.length)
            layer.keys[:, :, used] = layer.keys[rows][:, :, used]
            layer.values[:, :, used] = layer.values[rows][:, :, used]

    @property
    def n_bytes(self) -> int:
        """Memory of the buffer, used or not."""
        return sum(layer.keys.nbytes + layer.values.nbytes for layer in self.layers)
