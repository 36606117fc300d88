"""The loop against transformers' generate, against itself without a cache, and at its edges."""

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel

from minillm.generation import ContiguousCache, Sampler, generate, generate_text, greedy, stream
from minillm.generation.loop import _checked_padding, _cut_at, stream_text
from minillm.hub import to_hf
from minillm.models.gpt import GPT, GPTConfig
from minillm.nn.ops import TORCH_OPS
from minillm.tokenizers import train_bpe

V, CONTEXT = 37, 40


class Counting(nn.Module):
    """A model that remembers how many tokens it was given in each call."""

    def __init__(self, model):
        super().__init__()
        self.model, self.config, self.reads = model, model.config, []

    def forward(self, tokens, **kwargs):
        self.reads.append(tokens.shape[1])
        return self.model(tokens, **kwargs)


@pytest.fixture
def model():
    torch.manual_seed(0)
    gpt = GPT(GPTConfig(V, CONTEXT, d_model=20, n_layers=3, n_heads=4), ops=TORCH_OPS).double()
    with torch.no_grad():
        for p in gpt.parameters():
            p += torch.randn_like(p) * 0.3
    return Counting(gpt.eval())


@pytest.fixture
def theirs(model):
    config = GPT2Config(
        vocab_size=V, n_positions=CONTEXT, n_embd=20, n_layer=3, n_head=4, n_inner=80,
        attn_implementation="eager", bos_token_id=None, eos_token_id=None,
    )  # fmt: skip
    hf = GPT2LMHeadModel(config).double().eval()
    hf.load_state_dict(to_hf(model.model))
    return hf


def random_tokens(b, t, seed=1):
    return torch.randint(0, V, (b, t), generator=torch.Generator().manual_seed(seed))


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


TOKENS = random_tokens(3, 9)
PADS = [0, 3, 8]
MASK = torch.stack([torch.arange(9) >= n for n in PADS])
ALL = torch.ones_like(MASK)  # else transformers hides tokens equal to pad_token_id
NUCLEUS = Sampler(temperature=1.3, top_k=20, top_p=0.9, repetition_penalty=1.2)

# --- against transformers


def test_greedy_equals_transformers(model, theirs):
    expected = theirs.generate(
        TOKENS, attention_mask=ALL, max_new_tokens=25, do_sample=False, pad_token_id=0
    )
    ours = generate(model, TOKENS, max_new_tokens=25)
    assert torch.equal(ours, expected)


def test_left_padded_batch_with_eos_equals_transformers(model, theirs):
    free = generate(model, TOKENS, max_new_tokens=25, attention_mask=MASK)
    eos = int(free[0, 9 + 4])  # so that the rows end at different steps, or never
    expected = theirs.generate(
        TOKENS, attention_mask=MASK, max_new_tokens=25, do_sample=False, eos_token_id=eos,
        pad_token_id=eos,
    )  # fmt: skip
    ours = generate(model, TOKENS, max_new_tokens=25, attention_mask=MASK, eos_id=eos)
    assert torch.equal(ours, expected)
    assert (ours[0, 9 + 4 :] == eos).all()


def test_sampled_tokens_equal_transformers(model, theirs):
    torch.manual_seed(7)
    expected = theirs.generate(
        TOKENS, attention_mask=ALL, max_new_tokens=25, do_sample=True, temperature=1.3, top_k=20,
        top_p=0.9, repetition_penalty=1.2, pad_token_id=0,
    )  # fmt: skip
    ours = generate(model, TOKENS, max_new_tokens=25, sampler=NUCLEUS, generator=seeded(7))
    assert torch.equal(ours, expected)


# --- cached, uncached, padded, alone: all the same


@pytest.mark.parametrize("sampler", [greedy, NUCLEUS])
@pytest.mark.parametrize("mask", [None, MASK])
def test_cached_equals_uncached(model, sampler, mask):
    options = {"max_new_tokens": 25, "sampler": sampler, "attention_mask": mask}
    cached = generate(model, TOKENS, generator=seeded(), **options)
    uncached = generate(model, TOKENS, generator=seeded(), cache=None, **options)
    assert torch.equal(cached, uncached)


@pytest.mark.parametrize("cache", ["auto", None])
def test_left_padded_row_equals_the_row_alone(model, cache):
    strict = Sampler(top_k=1, repetition_penalty=3.0)  # would notice padding counted as seen
    for sampler in (greedy, strict):
        options = {"max_new_tokens": 20, "sampler": sampler, "cache": cache}
        padded = generate(model, TOKENS, attention_mask=MASK, **options)
        for row, n in enumerate(PADS):
            alone = generate(model, TOKENS[row : row + 1, n:], **options)
            assert torch.equal(padded[row : row + 1, n:], alone)


def test_what_is_padded_with_does_not_matter(model):
    other = torch.where(MASK, TOKENS, (TOKENS + 5) % V)
    a, b = (
        generate(model, tokens, max_new_tokens=20, attention_mask=MASK, sampler=NUCLEUS,
                 generator=seeded())[:, 9:]
        for tokens in (TOKENS, other)
    )  # fmt: skip
    assert torch.equal(a, b)


def test_each_token_is_read_once(model):
    generate(model, TOKENS, max_new_tokens=12)
    assert model.reads == [9] + [1] * 11
    model.reads.clear()
    generate(model, TOKENS, max_new_tokens=12, cache=None)
    assert model.reads == list(range(9, 21))


@pytest.mark.parametrize("sizes", [[8], [3, 5], [1] * 8, [4]])
def test_a_cache_handed_in_holds_the_prefix(model, sizes):
    expected = generate(model, TOKENS, max_new_tokens=12)
    cache, start = ContiguousCache.for_model(model, 3), 0
    with torch.no_grad():
        for n in sizes:
            model(TOKENS[:, start : start + n], cache=cache)
            start += n
    model.reads.clear()
    assert torch.equal(generate(model, TOKENS, max_new_tokens=12, cache=cache), expected)
    assert model.reads == [9 - start] + [1] * 11
    assert cache.length == 20  # the last token has not been read
    more = generate(model, expected, max_new_tokens=5, cache=cache)
    assert torch.equal(more, generate(model, TOKENS, max_new_tokens=17))


def test_sampling_depends_on_the_generator_only(model):
    runs = []
    for seed in (0, 0, 1):
        torch.manual_seed(len(runs))
        options = {"sampler": NUCLEUS, "generator": seeded(seed)}
        runs.append(generate(model, TOKENS, max_new_tokens=20, **options))
    assert torch.equal(runs[0], runs[1])
    assert not torch.equal(runs[0], runs[2])


# --- wrong loops are noticed


def forgets_positions(model, tokens, mask, n):
    for _ in range(n):
        column = model(tokens, attention_mask=mask)[:, -1].argmax(-1, keepdim=True)
        tokens = torch.cat([tokens, column], 1)
        mask = torch.cat([mask, torch.ones(len(mask), 1, dtype=torch.bool)], 1)
    return tokens


def forgets_the_mask(model, tokens, mask, n):
    return generate(model, tokens, max_new_tokens=n)


def reads_the_last_token_twice(model, tokens, mask, n):
    cache = ContiguousCache.for_model(model, len(tokens))
    model(tokens, cache=cache)
    for _ in range(n):
        column = model(tokens[:, -1:], cache=cache)[:, -1].argmax(-1, keepdim=True)
        tokens = torch.cat([tokens, column], 1)
    return tokens


@torch.no_grad()
@pytest.mark.parametrize("wrong", [forgets_positions, forgets_the_mask, reads_the_last_token_twice])
def test_wrong_loops_are_noticed(model, wrong):
    right = generate(model, TOKENS, max_new_tokens=20, attention_mask=MASK)
    assert not torch.equal(wrong(model, TOKENS, MASK, 20), right)


# --- streaming


def test_stream_yields_each_column_as_soon_as_it_is_known(model):
    columns = stream(model, TOKENS, max_new_tokens=12)
    assert model.reads == []
    seen = []
    for step, column in enumerate(columns, start=1):
        assert len(model.reads) == step
        seen.append(column)
    assert torch.equal(torch.stack(seen, 1), generate(model, TOKENS, max_new_tokens=12)[:, 9:])


def test_stream_leaves_grad_mode_alone_and_its_ids_can_train(model):
    for column in stream(model, TOKENS, max_new_tokens=3):
        assert torch.is_grad_enabled()
        assert not torch.is_inference_mode_enabled()
        assert not column.is_inference()
    tokens = generate(model, TOKENS, max_new_tokens=3)
    model(tokens).sum().backward()
    assert model.model.tokens.weight.grad is not None


def test_a_column_can_be_kept_or_changed_by_the_caller(model):
    columns = []
    for column in stream(model, TOKENS, max_new_tokens=8):
        columns.append(column.clone())
        column.fill_(0)
    assert torch.equal(torch.stack(columns, 1), generate(model, TOKENS, max_new_tokens=8)[:, 9:])


# --- the end token


class Script(nn.Module):
    """Says the given ids one after the other, row by row, whatever it reads."""

    def __init__(self, *rows, vocab_size=V, max_seq_len=10_000):
        super().__init__()
        self.rows, self.calls = torch.tensor(rows), 0
        self.config = GPTConfig(vocab_size, max_seq_len, d_model=1, n_layers=1, n_heads=1)
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, tokens, *, positions, attention_mask, cache, last_only):
        column = self.rows[:, self.calls % self.rows.shape[1]]
        self.calls += 1
        cache[0].append(*[torch.zeros(len(tokens), 1, tokens.shape[1], 1)] * 2)
        return nn.functional.one_hot(column, self.config.vocab_size).float()[:, None]


def test_rows_end_on_their_own_and_the_stream_with_the_last():
    script = Script([5, 9, 6, 6, 6], [5, 6, 6, 9, 6], [9, 9, 9, 6, 9])
    out = generate(script, torch.ones(3, 2, dtype=torch.long), max_new_tokens=5, eos_id=9)
    assert out.tolist() == [[1, 1, 5, 9, 9, 9], [1, 1, 5, 6, 6, 9], [1, 1, 9, 9, 9, 9]]
    assert script.calls == 4


def test_an_end_token_in_the_prompt_ends_nothing():
    out = generate(Script([5, 6, 9]), torch.tensor([[9, 9]]), max_new_tokens=3, eos_id=9)
    assert out.tolist() == [[9, 9, 5, 6, 9]]


# --- text


@pytest.fixture(scope="module")
def tokenizer():
    text = "the cat and the hat and that bat sat on the mat. Ünïcödé 漢字 🙂🙃. " * 5
    return train_bpe(text, 300, special_tokens=["<|endoftext|>"])


def say(tokenizer, ids, **options):
    script = Script(ids, vocab_size=tokenizer.vocab_size)
    options = {"max_new_tokens": len(ids), **options}
    return list(stream_text(script, tokenizer, "Once", **options)), script.calls


def byte_ids(tokenizer, text):
    return [i for byte in text.encode() for i in [_id_of(tokenizer, byte)]]


def _id_of(tokenizer, byte):
    return next(i for i, piece in tokenizer.token_bytes.items() if piece == bytes([byte]))


def test_never_half_a_character(tokenizer):
    text = "aé漢🙂\N{COMBINING ACUTE ACCENT}z"
    pieces, _ = say(tokenizer, byte_ids(tokenizer, text))
    assert pieces == list(text)


def test_the_end_token_is_not_text(tokenizer):
    ids = tokenizer.encode("the cat")
    pieces, calls = say(tokenizer, [*ids, tokenizer.eos_id, *ids])
    assert "".join(pieces) == "the cat"
    assert calls == len(ids) + 1


@pytest.mark.parametrize("split", ["tokens", "bytes"])
def test_stop_strings_span_tokens_and_are_never_leaked(tokenizer, split):
    encode = tokenizer.encode if split == "tokens" else lambda s: byte_ids(tokenizer, s)
    before, after = encode("the hat\n\nUs"), encode("er: and on")
    pieces, calls = say(tokenizer, before + after, stop=["\n\nUser:", "###"])
    assert "".join(pieces) == "the hat"
    assert len(before) < calls < len(before + after)  # it stopped reading, too


def test_what_looks_like_a_stop_string_is_emitted_in_the_end(tokenizer):
    ids = byte_ids(tokenizer, "on the ma")
    assert "".join(say(tokenizer, ids, stop=["mat", "na", " the  "])[0]) == "on the ma"


def test_one_stop_string_need_not_be_in_a_list(tokenizer):
    assert "".join(say(tokenizer, tokenizer.encode("the cat sat"), stop="sat")[0]) == "the cat "


def cut(text, stop):
    """By definition: the first place where a stop string ends, and the longest that ends there."""
    for end in range(1, len(text) + 1):
        if ends := [s for s in stop if text[:end].endswith(s)]:
            return text[: end - max(map(len, ends))]
    return text


letters = st.text("abc", min_size=1, max_size=4)


@given(st.lists(letters, max_size=12), st.lists(letters, max_size=3))
def test_the_cut_is_the_definition_however_the_text_is_split(pieces, stop):
    text, emitted, given = "".join(pieces), "", ""
    consumed = []
    for out in _cut_at(tuple(stop), (consumed.append(p) or p for p in pieces)):
        emitted, given = emitted + out, "".join(consumed)
        assert out
        assert cut(text, stop).startswith(emitted)
        # a character is held back only while a stop string may begin at or before it
        held = cut(given, stop)[len(emitted) :]
        assert not held or any(s.startswith(given[len(emitted) :]) for s in stop)
    assert emitted == cut(text, stop)
    first = next((n for n in range(1, len(pieces) + 1) if cut(t := "".join(pieces[:n]), stop) != t),
                 len(pieces))  # fmt: skip
    assert len(consumed) == first


def leaky_cut(stop, pieces):
    """What a loop does that looks at the text so far after having shown it."""
    text = ""
    for piece in pieces:
        text += piece
        yield piece
        if any(s in text for s in stop):
            return


def cut_by_piece(stop, pieces):
    """What a loop does that compares stop strings with single tokens."""
    yield from itertools.takewhile(lambda piece: not any(s in piece for s in stop), pieces)


@pytest.mark.parametrize("wrong", [leaky_cut, cut_by_piece])
def test_wrong_cuts_are_noticed(wrong):
    pieces, stop = ["the", " h", "at", " a", "nd"], ("hat a",)
    assert "".join(_cut_at(stop, iter(pieces))) == "the " == cut("".join(pieces), stop)
    assert "".join(wrong(stop, iter(pieces))) != "the "


def test_generate_text_is_the_stream_joined(tokenizer):
    torch.manual_seed(0)
    gpt = GPT(GPTConfig(tokenizer.vocab_size, 64, d_model=16, n_layers=2, n_heads=2))
    options = {"max_new_tokens": 40, "sampler": Sampler(temperature=2.0)}
    a, b = (
        call(gpt, tokenizer, "the cat", generator=seeded(), **options)
        for call in (generate_text, lambda *args, **kw: "".join(stream_text(*args, **kw)))
    )
    ids = generate(gpt, torch.tensor([tokenizer.encode("the cat")]), generator=seeded(), **options)
    assert a == b == tokenizer.decode(ids[0, len(tokenizer.encode("the cat")) :].tolist())


# --- requests that cannot end well are refused before the model is called


@pytest.mark.parametrize(
    ("tokens", "options", "message"),
    [
        (TOKENS, {"max_new_tokens": 32}, "9 prompt tokens and 32 new ones make 41.*is 40.*shorten"),
        (random_tokens(1, 50), {"max_new_tokens": 1}, "50 prompt tokens"),
        (TOKENS, {"max_new_tokens": 0}, "max_new_tokens is 0"),
        (TOKENS[:, :0], {"max_new_tokens": 3}, r"shape \(3, 0\).*at least one token"),
        (TOKENS[:0], {"max_new_tokens": 3}, r"shape \(0, 9\)"),
        (TOKENS + 1, {"max_new_tokens": 3}, "token id 37 is outside.*vocabulary of 37"),
        (TOKENS - 37, {"max_new_tokens": 3}, "token id -3. is outside"),
        (TOKENS, {"max_new_tokens": 3, "attention_mask": MASK.flip(1)}, "pad prompts on the left"),
        (TOKENS, {"max_new_tokens": 3, "attention_mask": MASK & False}, "pad prompts on the left"),
    ],
)
def test_bad_requests(model, tokens, options, message):
    if "37 is" in message:
        tokens = tokens.clamp(max=37).index_fill(1, torch.tensor([0]), 37)
    for call in (stream, generate):  # stream complains at once, not at the first column
        with pytest.raises(ValueError, match=message):
            call(model, tokens, **options)
    assert model.reads == []


def test_masks_of_other_types_or_shapes():
    with pytest.raises(ValueError, match=r"torch\.int64.*mask\.bool\(\)"):
        _checked_padding(MASK.long(), TOKENS)
    with pytest.raises(ValueError, match=r"shape \(3, 8\).*\(3, 9\)"):
        _checked_padding(MASK[:, 1:], TOKENS)


def test_the_context_can_be_filled_exactly(model):
    assert generate(model, TOKENS, max_new_tokens=31).shape == (3, 40)


def test_a_cache_that_holds_the_whole_prompt(model):
    cache = ContiguousCache.for_model(model, 3)
    with torch.no_grad():
        model(TOKENS, cache=cache)
    with pytest.raises(ValueError, match=r"holds 9 .* prompt has 9.*cache\.rollback\(8\)"):
        stream(model, TOKENS, max_new_tokens=3, cache=cache)
    cache.rollback(8)
    again = generate(model, TOKENS, max_new_tokens=3, cache=cache)
    assert torch.equal(again, generate(model, TOKENS, max_new_tokens=3))


def test_dropout_in_training_mode():
    gpt = GPT(GPTConfig(V, CONTEXT, d_model=8, n_layers=1, n_heads=1, dropout=0.1))
    with pytest.raises(ValueError, match=r"model\.eval\(\)"):
        stream(gpt, TOKENS, max_new_tokens=3)
    assert generate(gpt.eval(), TOKENS, max_new_tokens=3).shape == (3, 12)


def test_nan_weights_are_reported(model):
    with torch.no_grad():
        model.model.tokens.weight[3, 0] = torch.nan
    with pytest.raises(ValueError, match="largest logit of a row is nan"):
        generate(model, TOKENS, max_new_tokens=3)


def test_bad_text_requests(tokenizer):
    script = Script([1], vocab_size=tokenizer.vocab_size)
    with pytest.raises(ValueError, match=r"the prompt '' gives no tokens.*end-of-text"):
        stream_text(script, tokenizer, "", max_new_tokens=3)
    with pytest.raises(ValueError, match="stop string is empty"):
        stream_text(script, tokenizer, "Once", max_new_tokens=3, stop=["###", ""])
    with pytest.raises(ValueError, match="max_seq_len"):
        stream_text(script, tokenizer, "Once", max_new_tokens=10_000)
    assert script.calls == 0
