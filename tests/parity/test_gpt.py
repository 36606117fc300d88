"""GPT-1 and GPT-2 against transformers, in float64, with noise on every weight."""

import copy
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from transformers import GPT2Config, GPT2LMHeadModel, OpenAIGPTConfig, OpenAIGPTLMHeadModel

from minillm.hub import load_hf, save_pretrained, to_hf
from minillm.models.gpt import GPT, gpt1, gpt2
from minillm.nn import (
    TORCH_OPS,
    Ops,
    PostNormBlock,
    PreNormBlock,
    causal_mask,
    gelu_exact,
    scaled_dot_product_attention,
)

ATOL = 1e-9
V, N = 97, 41
SIZES = {"vocab_size": V, "max_seq_len": N, "d_model": 24, "n_layers": 3, "n_heads": 3}
HF = {"vocab_size": V, "n_positions": N, "n_embd": 24, "n_layer": 3, "n_head": 3,
      "resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}  # fmt: skip
ORACLES = {"gpt1": "OpenAIGPTLMHeadModel", "gpt2": "GPT2LMHeadModel"}


@pytest.fixture(autouse=True)
def _float64():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def oracle(kind):
    if kind == "gpt2":
        config = GPT2Config(**HF, n_inner=56, bos_token_id=None, eos_token_id=None)
        config._attn_implementation = "eager"
        return GPT2LMHeadModel(config).double().eval()
    return OpenAIGPTLMHeadModel(OpenAIGPTConfig(**HF)).double().eval()


def ours(kind, ops=None):
    return gpt2(**SIZES, d_ff=56, ops=ops) if kind == "gpt2" else gpt1(**SIZES, ops=ops)


@pytest.fixture(params=["gpt1", "gpt2"])
def pair(request, perturb):
    """The oracle with noise, and our model with the oracle's weights."""
    theirs = perturb(oracle(request.param), seed=1)
    model = ours(request.param)
    load_hf(model, theirs.state_dict())
    return request.param, theirs, model


def inputs(padding, offset=0, b=3, t=17):
    """Tokens, mask, positions and labels; no label where a padded query would have to predict."""
    generator = torch.Generator().manual_seed(2)
    tokens = torch.randint(V, (b, t), generator=generator)
    mask = torch.ones(b, t, dtype=torch.bool)
    for row, pads in enumerate([0, 3, 6][:b]):
        if padding == "left":
            mask[row, :pads] = False
        elif padding == "right":
            mask[row, t - pads :] = False
    positions = (mask.cumsum(1) - 1).clamp(min=0) + offset
    labels = tokens.masked_fill(~mask, -100)
    labels[:, 1:][~mask[:, :-1]] = -100
    return tokens, mask, positions, labels


def both(theirs, model, case, ops=None):
    """Logits at real positions, loss, and gradients by their names: theirs, then ours."""
    tokens, mask, positions, labels = case
    theirs.zero_grad()
    model.zero_grad()
    out = theirs(
        input_ids=tokens, attention_mask=mask.long(), position_ids=positions, labels=labels
    )
    # transformers casts logits to float32 for its loss; the same loss on its float64 logits
    expected = F.cross_entropy(out.logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
    assert abs(out.loss - expected) < 1e-5 * expected  # its rounding, not ours
    expected.backward()
    logits = model(tokens, positions=positions, attention_mask=None if mask.all() else mask)
    loss = (ops or Ops()).cross_entropy(logits[:, :-1], labels[:, 1:])
    loss.backward()
    gradients = copy.deepcopy(model)
    for (_, to), (_, source) in zip(
        gradients.named_parameters(), model.named_parameters(), strict=True
    ):
        to.data = source.grad
    gradients = to_hf(gradients)
    pairs = {name: (p.grad, gradients[name]) for name, p in theirs.named_parameters()}
    return (out.logits[mask], logits[mask]), (expected, loss), pairs


def worst(pairs):
    return max((a - b).abs().max().item() for a, b in pairs)


@pytest.mark.parametrize(
    ("padding", "offset"), [("none", 0), ("none", 9), ("left", 0), ("right", 0)]
)
@pytest.mark.parametrize("ops", [Ops(), TORCH_OPS], ids=["reference", "torch"])
def test_logits_loss_and_every_gradient(pair, padding, offset, ops, record):
    kind, theirs, _ = pair
    model = ours(kind, ops)
    load_hf(model, theirs.state_dict())
    logits, loss, gradients = both(theirs, model, inputs(padding, offset), ops)
    assert len(gradients) == sum(1 for _ in theirs.named_parameters()) > 30
    assert min(g[0].abs().max() for g in gradients.values()) > 1e-6, "a gradient that says nothing"
    check = {"none": "offset positions" if offset else "plain", "left": "left padding",
             "right": "right padding"}[padding]  # fmt: skip
    for what, error in [
        ("logits", worst([logits])),
        ("loss", worst([loss])),
        ("gradients", worst(gradients.values())),
    ]:
        record(kind, ORACLES[kind], f"{what}, {check}", error)
        assert error < ATOL, what


class CatCache:
    """The least that satisfies the Cache protocol: concatenate."""

    class Layer:
        def __init__(self):
            self.k = self.v = None

        def append(self, k, v):
            self.k = k if self.k is None else torch.cat([self.k, k], dim=2)
            self.v = v if self.v is None else torch.cat([self.v, v], dim=2)
            return self.k, self.v

    def __init__(self, n_layers):
        self.layers = [self.Layer() for _ in range(n_layers)]

    @property
    def length(self):
        return 0 if self.layers[-1].k is None else self.layers[-1].k.shape[2]

    def __getitem__(self, i):
        return self.layers[i]


@pytest.mark.parametrize("chunks", [[1] * 17, [17], [9, 1, 7], [4, 13]], ids=str)
@pytest.mark.parametrize("padding", ["none", "left"])
@pytest.mark.parametrize("ops", [Ops(), TORCH_OPS], ids=["reference", "torch"])
def test_cached_and_chunked_decoding_equals_the_oracle_in_one_go(
    pair, chunks, padding, ops, record
):
    kind, theirs, _ = pair
    model = ours(kind, ops)
    load_hf(model, theirs.state_dict())
    tokens, mask, positions, _ = inputs(padding)
    with torch.no_grad():
        expected = theirs(
            input_ids=tokens, attention_mask=mask.long(), position_ids=positions
        ).logits
        cache, logits, start = CatCache(3), [], 0
        for size in chunks:
            part, end = slice(start, start + size), start + size
            logits.append(
                model(
                    tokens[:, part],
                    positions=positions[:, part] if padding == "left" else None,
                    attention_mask=mask[:, :end] if padding == "left" else None,
                    cache=cache,
                )
            )
            start = end
    error = worst([(torch.cat(logits, dim=1)[mask], expected[mask])])
    check = "logits, one token at a time" if chunks == [1] * 17 else "logits, in chunks"
    record(kind, ORACLES[kind], check, error)
    assert cache.length == 17
    assert error < ATOL


def test_state_dict_is_a_bijection(pair):
    kind, theirs, model = pair
    back = to_hf(model)
    expected = theirs.state_dict()
    assert back.keys() == expected.keys()
    assert all(torch.equal(back[name], expected[name]) for name in expected)
    numel = sum(p.numel() for p in theirs.parameters())
    assert sum(p.numel() for p in model.parameters()) == numel
    again = ours(kind)
    load_hf(again, back)
    assert all(
        torch.equal(a, b) for a, b in zip(again.parameters(), model.parameters(), strict=True)
    )


def test_transformers_loads_an_exported_folder_and_continues_with_the_same_64_tokens(
    pair, perturb, tmp_path
):
    kind, theirs, _ = pair
    sizes = SIZES | {"max_seq_len": 80}
    model = perturb((gpt2 if kind == "gpt2" else gpt1)(**sizes), seed=4)
    save_pretrained(model, tmp_path)
    loaded = type(theirs).from_pretrained(tmp_path, attn_implementation="eager").eval()
    assert loaded.dtype == torch.float64
    prompt = torch.tensor([[5, 11, 2], [7, 7, 90]])
    expected = loaded.generate(
        prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=64, do_sample=False,
        pad_token_id=0,
    )  # fmt: skip
    tokens, cache, new = prompt, CatCache(3), prompt
    with torch.no_grad():
        for _ in range(64):
            new = model(new, cache=cache, last_only=True)[:, -1].argmax(-1)[:, None]
            tokens = torch.cat([tokens, new], dim=1)
    assert torch.equal(tokens, expected)
    assert len(set(tokens[0].tolist())) > 3, "a constant continuation would prove little"


# --- named wrong versions: the comparison above must reject each of them -----------------------


def _attention(mask_of=None, scale=None, axis=-1):
    def attend(q, k, v, mask=None, *, causal=False, scale_=scale, dropout=0.0):
        t, s, p = q.shape[2], k.shape[2], q.shape[3]
        allowed = causal_mask(t, s) if mask_of is None else mask_of(t, s)
        scores = (q @ k.mT) * (p**-0.5 if scale_ is None else scale_)
        scores = scores.masked_fill(~allowed, torch.finfo(scores.dtype).min)
        return scores.softmax(axis).masked_fill(~allowed, 0) @ v

    return attend


def _ones(t, s):
    return torch.ones(t, s, dtype=torch.bool)


WRONG_OPS = {
    "missing_scale": Ops(attention=partial(scaled_dot_product_attention, scale=1.0)),
    "scale_by_d_model": Ops(attention=partial(scaled_dot_product_attention, scale=24**-0.5)),
    "mask_inverted": Ops(attention=_attention(lambda t, s: ~_ones(t, s).tril(-1))),
    "mask_sees_one_ahead": Ops(attention=_attention(lambda t, s: _ones(t, s).tril(1))),
    "mask_hides_self": Ops(attention=_attention(lambda t, s: _ones(t, s).tril(-1))),
    "no_mask": Ops(attention=_attention(_ones)),
    "softmax_over_queries": Ops(attention=_attention(axis=-2)),
    "gelu_exact": Ops(gelu_tanh=gelu_exact),
}


def _zero_biases(model):
    for name, p in model.named_parameters():
        if name.endswith("bias"):
            p.data.zero_()


def _swap_norms(model):
    for block in model.blocks:
        block.attention_norm, block.ffn_norm = block.ffn_norm, block.attention_norm


def _swap_query_and_key(model):
    for block in model.blocks:
        block.attention.query, block.attention.key = block.attention.key, block.attention.query


def _swap_heads(model):
    for block in model.blocks:
        w = block.attention.output.weight
        w.data = w.unflatten(1, (3, 8)).transpose(1, 2).flatten(1).contiguous()


def _conv1d_not_transposed(model):
    for block in model.blocks:
        block.attention.output.weight.data = block.attention.output.weight.data.T.contiguous()


def _eps(model):
    for block in model.blocks:
        block.attention_norm.eps = 1e-3


def _positions_off_by_one(model):
    model.positions.weight.data = model.positions.weight.data.roll(1, 0)


WRONG_MODELS = {
    "missing_biases": _zero_biases,
    "norms_swapped": _swap_norms,
    "query_and_key_swapped": _swap_query_and_key,
    "heads_interleaved": _swap_heads,
    "conv1d_not_transposed": _conv1d_not_transposed,
    "wrong_eps": _eps,
    "positions_off_by_one": _positions_off_by_one,
}


@pytest.mark.parametrize("name", [*WRONG_OPS, *WRONG_MODELS, "other_block", "final_norm_flipped"])
def test_wrong_version_is_rejected(pair, name):
    kind, theirs, model = pair
    if name in WRONG_OPS:
        model = ours(kind, WRONG_OPS[name])
        load_hf(model, theirs.state_dict())
    elif name in WRONG_MODELS:
        WRONG_MODELS[name](model)
    else:
        block = PreNormBlock if kind == "gpt2" else PostNormBlock
        if name == "other_block":
            block = PostNormBlock if kind == "gpt2" else PreNormBlock
        final = (kind == "gpt2") != (name == "final_norm_flipped")
        other = GPT(model.config, block=block, final_norm=final)
        other.load_state_dict(model.state_dict(), strict=False)
        model = other
    tokens, mask, positions, _ = inputs("none")
    with torch.no_grad():
        expected = theirs(input_ids=tokens, position_ids=positions).logits
        error = worst([(expected, model(tokens))])
    assert error > 1e-5, f"{name} goes unnoticed"


def test_causal_mask_aligned_to_the_top_left_is_rejected_with_a_cache(pair):
    kind, theirs, _ = pair
    top_left = Ops(attention=_attention(lambda t, s: _ones(t, s).tril()))
    model = ours(kind, top_left)
    load_hf(model, theirs.state_dict())
    tokens = inputs("none")[0]
    with torch.no_grad():
        expected = theirs(input_ids=tokens).logits
        assert worst([(expected, model(tokens))]) < ATOL, "without a cache nobody notices"
        cache = CatCache(3)
        logits = [model(tokens[:, :9], cache=cache), model(tokens[:, 9:], cache=cache)]
    assert worst([(expected, torch.cat(logits, dim=1))]) > 1e-2


def test_at_default_initialization_swapped_norms_go_unnoticed():
    """Why every comparison here starts from noise."""
    theirs, model = oracle("gpt2"), ours("gpt2")
    load_hf(model, theirs.state_dict())
    _swap_norms(model)
    _zero_biases(model)
    tokens = inputs("none")[0]
    with torch.no_grad():
        assert worst([(theirs(input_ids=tokens).logits, model(tokens))]) < ATOL
