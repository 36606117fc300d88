"""The generation loop, model → last logits → sampler → one more token, for ids and for text."""

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, Literal

import torch
from jaxtyping import Bool, Int
from torch import Tensor, nn

from minillm.generation.cache import ContiguousCache
from minillm.generation.sampling import greedy
from minillm.nn.attention import Cache
from minillm.tokenizers.base import Tokenizer

_ID_TYPES = (torch.int64, torch.int32)


def stream(
    model: nn.Module,
    tokens: Int[Tensor, "b t"],
    *,
    max_new_tokens: int,
    sampler: Callable[..., Tensor] = greedy,
    eos_id: int | None = None,
    attention_mask: Bool[Tensor, "b t"] | None = None,
    cache: Cache | Literal["auto"] | None = "auto",
    generator: torch.Generator | None = None,
) -> Iterator[Int[Tensor, " b"]]:
    """x_{t+1} ~ sampler(model(x_1 … x_t)), one column of ids at a time, as soon as it is known.

    A row that has produced `eos_id` goes on with `eos_id`; the stream ends when every row has.
    Prompts of different lengths are padded on the left, where `attention_mask` is False.
    `cache=None` reads the whole text again for every token. A cache handed in is taken to hold the
    first `cache.length` of `tokens`; it is extended, and afterwards holds all but the last token.
    `torch.compile(model)` serves as well as `model`: the first two tokens then wait for the
    compiler, and all others are faster, on a CPU most with `ops=TORCH_OPS`.
    Raises ValueError, before the model is called, for what cannot end well.
    """
    _check_types(model, tokens, max_new_tokens, sampler, eos_id, cache, generator)
    _check_request(model, tokens, max_new_tokens)
    attention_mask = _checked_padding(attention_mask, tokens)
    length = tokens.shape[1]
    if cache == "auto":
        # a model that remembers in another way, such as a recurrent one, brings its own cache
        new_cache = getattr(model, "new_cache", partial(ContiguousCache.for_model, model))
        cache = new_cache(tokens.shape[0], length + max_new_tokens)
    elif cache is not None and cache.length >= length:
        raise ValueError(
            f"the cache holds {cache.length} tokens and the prompt has {length}: the last one must "
            f"still be read for its logits, so call cache.rollback({length - 1}) first"
        )
    return _stream(model, tokens, max_new_tokens, sampler, eos_id, attention_mask, cache, generator)


def _stream(model, tokens, max_new_tokens, sampler, eos_id, attention_mask, cache, generator):
    """The loop itself; between two yields, grad mode belongs to the caller."""
    (batch, start), end = tokens.shape, tokens.shape[1] + max_new_tokens
    ids = nn.functional.pad(tokens, (0, max_new_tokens))
    seen, mask, positions = ids, None, None
    if attention_mask is not None:
        mask = nn.functional.pad(attention_mask, (0, max_new_tokens), value=True)
        positions = (mask.cumsum(1) - 1).clamp(min=0)  # 0 at the first real token of every row
        seen = ids.masked_fill(~mask, -1)
    finished = torch.zeros(batch, dtype=torch.bool, device=tokens.device)
    for length in range(start, end):
        with torch.inference_mode():
            read = 0 if cache is None else cache.length  # tokens that need no second reading
            logits = model(
                ids[:, read:length],
                positions=None if positions is None else positions[:, read:length],
                attention_mask=None if mask is None else mask[:, :length],
                cache=cache,
                last_only=True,
            )
            column = sampler(logits[:, -1], seen[:, :length], generator)
            if eos_id is not None:
                column = column.masked_fill(finished, eos_id)
                finished |= column == eos_id
            ids[:, length] = column
            if seen is not ids:
                seen[:, length] = column
        yield ids[:, length].clone()  # made outside: inference tensors cannot serve in training
        if eos_id is not None and finished.all():
            return


def generate(
    model: nn.Module, tokens: Int[Tensor, "b t"], *, max_new_tokens: int, **options: Any
) -> Int[Tensor, "b n"]:
    """The prompt and up to `max_new_tokens` new columns; `options` are those of `stream`."""
    columns = stream(model, tokens, max_new_tokens=max_new_tokens, **options)
    return torch.cat([tokens, *(column[:, None] for column in columns)], dim=1)


def stream_text(
    model: nn.Module,
    tokenizer: Tokenizer,
    prompt: str,
    *,
    max_new_tokens: int,
    stop: Iterable[str] = (),
    eos_id: int | None = None,
    **options: Any,
) -> Iterator[str]:
    """The continuation of `prompt` in pieces of whole characters, up to a stop string or the end.

    `eos_id` is the tokenizer's by default; `options` are the others of `stream`. Neither the end
    token nor any part of a stop string is ever emitted: text that may turn out to begin one is held
    back until it is decided.
    """
    if isinstance(stop, Iterable):
        stop = (stop,) if isinstance(stop, str) else tuple(stop)
    if not isinstance(stop, tuple) or not all(isinstance(string, str) for string in stop):
        raise ValueError(f"stop is {stop!r:.60}: give strings, such as stop=['###'], or ()")
    if not isinstance(tokenizer, Tokenizer):
        raise ValueError(f"tokenizer is {tokenizer!r:.60}: give one of minillm.tokenizers")
    if "" in stop:
        raise ValueError("a stop string is empty and would stop everything at once: remove it")
    ids = tokenizer.encode(prompt)
    if not ids:
        raise ValueError(
            f"the prompt {prompt!r} gives no tokens, and the model needs one to start from: begin "
            "with some text, or call stream() with the end-of-text id"
        )
    eos_id = tokenizer.eos_id if eos_id is None else eos_id
    _check_model(model)
    tokens = torch.tensor([ids], device=next(model.parameters()).device)
    columns = stream(model, tokens, max_new_tokens=max_new_tokens, eos_id=eos_id, **options)
    return _cut_at(stop, tokenizer.decode_stream(_before(eos_id, columns)))


def generate_text(
    model: nn.Module,
    tokenizer: Tokenizer,
    prompt: str,
    *,
    max_new_tokens: int,
    **options: Any,
) -> str:
    """The continuation of `prompt`, without the prompt; `options` are those of `stream_text`."""
    pieces = stream_text(model, tokenizer, prompt, max_new_tokens=max_new_tokens, **options)
    return "".join(pieces)


def _before(eos_id: int | None, columns: Iterator[Tensor]) -> Iterator[int]:
    """The ids of a batch of one, up to the first `eos_id`."""
    for column in columns:
        if (i := int(column)) == eos_id:
            return
        yield i


def _cut_at(stop: tuple[str, ...], pieces: Iterator[str]) -> Iterator[str]:
    """The text before the first stop string to be completed (the longest, if two end together).

    A character is emitted once no stop string can begin at it, so that the cut does not depend on
    how the text came in pieces.
    """
    held = ""
    for piece in pieces:
        held += piece
        found = [(held.find(s) + len(s), held.find(s)) for s in stop if s in held]
        if found:
            if begin := min(found)[1]:
                yield held[:begin]
            return
        keep = max((n for s in stop for n in range(1, len(s)) if held.endswith(s[:n])), default=0)
        ready, held = held[: len(held) - keep], held[len(held) - keep :]
        if ready:
            yield ready
    if held:
        yield held


def _check_model(model) -> None:
    """Raise ValueError unless `model` is a module that says how long a text it reads."""
    if not isinstance(model, nn.Module) or not hasattr(model, "config"):
        raise ValueError(
            f"model is {model!r:.60}: give a language model with a config, such as gpt_tiny(256)"
        )


def _check_types(model, tokens, max_new_tokens, sampler, eos_id, cache, generator) -> None:
    """Raise ValueError for an argument that is not the kind of thing `stream` takes."""
    _check_model(model)
    if not isinstance(tokens, Tensor) or tokens.ndim != 2 or tokens.dtype not in _ID_TYPES:
        what = f"{tokens.dtype} {tuple(tokens.shape)}" if isinstance(tokens, Tensor) else tokens
        raise ValueError(
            f"tokens is {what!s:.60}: give integer ids of shape (batch, length), such as "
            "torch.tensor([[5, 7]])"
        )
    if not isinstance(max_new_tokens, int) or isinstance(max_new_tokens, bool):
        raise ValueError(f"max_new_tokens is {max_new_tokens!r}: give a whole number")
    if isinstance(sampler, type) or not callable(sampler):
        raise ValueError(f"sampler is {sampler!r:.60}: give a function or an instance, Sampler()")
    if eos_id is not None and (not isinstance(eos_id, int) or isinstance(eos_id, bool)):
        raise ValueError(f"eos_id is {eos_id!r:.60}: give one token id, or None")
    if cache is not None and cache != "auto" and not hasattr(cache, "length"):
        raise ValueError(f"cache is {cache!r:.60}: give 'auto', None or a ContiguousCache")
    if generator is not None and not isinstance(generator, torch.Generator):
        raise ValueError(
            f"generator is {generator!r:.60}: give torch.Generator().manual_seed(0), or None"
        )


def _check_request(model: nn.Module, tokens: Tensor, max_new_tokens: int) -> None:
    """Raise ValueError for a request that the model or its context cannot serve."""
    (batch, length), config = tokens.shape, model.config
    if batch == 0 or length == 0:
        raise ValueError(
            f"tokens has shape {(batch, length)}: a model continues at least one token, such as "
            "its end-of-text id, in at least one row"
        )
    if max_new_tokens < 1:
        raise ValueError(f"max_new_tokens is {max_new_tokens}: ask for at least 1")
    if (total := length + max_new_tokens) > config.max_seq_len:
        raise ValueError(
            f"{length} prompt tokens and {max_new_tokens} new ones make {total}, and the model's "
            f"max_seq_len is {config.max_seq_len}: shorten the prompt (tokens[:, -n:]) or lower "
            "max_new_tokens"
        )
    smallest, largest = int(tokens.min()), int(tokens.max())
    if smallest < 0 or largest >= config.vocab_size:
        raise ValueError(
            f"token id {smallest if smallest < 0 else largest} is outside the model's vocabulary "
            f"of {config.vocab_size}: are tokenizer and model a pair?"
        )
    if model.training and config.dropout > 0:
        raise ValueError(
            "the model is in training mode, where dropout makes every call differ: call "
            "model.eval() first"
        )


def _checked_padding(attention_mask: Tensor | None, tokens: Tensor) -> Tensor | None:
    """The mask, or None if it hides nothing; ValueError unless each row is False …, True …"""
    if attention_mask is None:
        return None
    if not isinstance(attention_mask, Tensor):
        raise ValueError(
            f"attention_mask is {attention_mask!r:.60}: write torch.tensor(mask, dtype=torch.bool)"
        )
    if attention_mask.dtype != torch.bool or attention_mask.shape != tokens.shape:
        raise ValueError(
            f"attention_mask is {attention_mask.dtype} of shape {tuple(attention_mask.shape)}: it "
            f"must be boolean and as tokens, {tuple(tokens.shape)}; write mask.bool() for 0 and 1"
        )
    if attention_mask.all():
        return None
    if not attention_mask[:, -1].all() or (~attention_mask[:, 1:] & attention_mask[:, :-1]).any():
        raise ValueError(
            "attention_mask has False after True: new tokens are appended on the right, so pad "
            "prompts on the left"
        )
    return attention_mask
