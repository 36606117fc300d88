"""GLM and GLM-130B against their authors' code, GLM-4 against transformers; float64, noise on all.

The authors' package (SwissArmyTransformer) is not needed here: its numbers lie in
tests/fixtures/glm_sat.npz, and tests/fixtures/make_glm_sat.py made them.
"""

import copy
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from transformers import GlmConfig, GlmForCausalLM

from minillm.generation.cache import ContiguousCache
from minillm.hub import load_hf, save_pretrained, to_hf
from minillm.models.chatglm import chatglm2, glm4
from minillm.models.glm import blank_loss, glm, glm_130b
from minillm.nn import (
    TORCH_OPS,
    Ops,
    Rotary,
    causal_mask,
    geglu_tanh,
    gelu_exact,
    rotary_frequencies,
    rotate_halves,
    rotate_pairs,
    scaled_dot_product_attention,
    swiglu,
)

ATOL = 1e-9
SAT = "SwissArmyTransformer, stored numbers"
NUMBERS = np.load(Path(__file__).parents[1] / "fixtures" / "glm_sat.npz")
SIZES = {"vocab_size": 23, "max_seq_len": 21, "d_model": 12, "n_layers": 2, "n_heads": 3}
KINDS = {"glm": (partial(glm, "base"), "GLM"), "glm_130b": (glm_130b, "GLM-130B")}


@pytest.fixture(autouse=True)
def _float64(monkeypatch):
    """Double precision everywhere, also where transformers casts to what it calls float32."""
    torch.set_default_dtype(torch.float64)
    for name in ("float32", "float"):
        monkeypatch.setattr(torch, name, torch.float64)
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
    yield
    monkeypatch.undo()
    torch.set_default_dtype(torch.float32)


def stored(name):
    return torch.from_numpy(np.array(NUMBERS[name]))


def of(kind, what):
    """The oracle's weights or gradients, by its names."""
    start = f"{kind}/{what}/"
    return {k.removeprefix(start): stored(k) for k in NUMBERS.files if k.startswith(start)}


def renamed_130b(theirs, n_layers=2, n_heads=3):
    """Their tensors under our names: norms one place on, heads' q, k, v apart, GeGLU's halves."""
    own = {"tokens.weight": theirs["transformer.word_embeddings.weight"]}
    norms = [f"transformer.layers.{i}.input_layernorm" for i in range(n_layers)]
    norms.append("transformer.final_layernorm")
    names = ["embedding_norm"] + [f"blocks.{i}.ffn_norm" for i in range(n_layers)]
    for kind in ("weight", "bias"):
        own |= {f"{n}.{kind}": theirs[f"{t}.{kind}"] for n, t in zip(names, norms, strict=True)}
        for i in range(n_layers):
            layer, block = f"transformer.layers.{i}", f"blocks.{i}"
            heads = theirs[f"{layer}.attention.query_key_value.{kind}"].unflatten(
                0, (n_heads, 3, 4)
            )
            for j, part in enumerate(("query", "key", "value")):
                own[f"{block}.attention.{part}.{kind}"] = heads[:, j].flatten(0, 1)
            up, gate = theirs[f"{layer}.mlp.dense_h_to_4h.{kind}"].chunk(2)
            own |= {f"{block}.ffn.up.{kind}": up, f"{block}.ffn.gate.{kind}": gate}
            for ours, name in (
                ("attention.output", "attention.dense"),
                ("attention_norm", "post_attention_layernorm"),
                ("ffn.down", "mlp.dense_4h_to_h"),
            ):
                own[f"{block}.{ours}.{kind}"] = theirs[f"{layer}.{name}.{kind}"]
    return own


def renamed(kind, what, model):
    if kind == "glm_130b":
        return renamed_130b(of(kind, what))
    other = copy.deepcopy(model)
    load_hf(other, of(kind, what))
    return other.state_dict()


def ours(kind, ops=None):
    model = KINDS[kind][0](**SIZES, d_ff=20, ops=ops)
    model.load_state_dict(renamed(kind, "weight", model))
    return model.eval()


def batch(kind, padding=0):
    """The fixture's rows, `padding` tokens to their left; what is real; part A's lengths."""
    tokens, targets, positions = stored("tokens"), stored("targets"), stored("positions")
    real = torch.arange(tokens.shape[1]) < stored("lengths")[:, None]
    pad = partial(F.pad, pad=(padding, 0))
    positions = positions if kind == "glm" else positions[:, 0]
    return {
        "tokens": pad(tokens, value=9),
        "targets": pad(targets, value=-100),
        "positions": pad(positions),
        "context": stored("context") + padding,
    }, pad(real)


def run(model, rows, real=None):
    options = {k: rows[k] for k in ("context", "positions")}
    return model(rows["tokens"], attention_mask=real, **options)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("ops", [Ops(), TORCH_OPS], ids=["reference", "torch"])
@pytest.mark.parametrize("padding", [0, 4], ids=["right padding", "left padding"])
def test_logits_loss_and_every_gradient_as_the_authors_code(kind, ops, padding, record):
    model = ours(kind, ops)
    rows, real = batch(kind, padding)
    logits = run(model, rows, real if padding else None)
    loss = F.cross_entropy(logits.flatten(0, 1), rows["targets"].flatten(), ignore_index=-100)
    loss.backward()
    gradients = renamed(kind, "gradient", model)
    named = dict(model.named_parameters())
    assert gradients.keys() == named.keys()
    # without rotations a key's bias changes no weight: softmax does not see what all scores share
    told = {n: g for n, g in gradients.items() if kind != "glm" or not n.endswith("key.bias")}
    assert min(g.abs().max() for g in told.values()) > 1e-4, "a gradient that says nothing"
    errors = {
        "logits": (logits[real] - stored(f"{kind}/logits")[real[:, padding:]]).abs().max(),
        "loss": abs(loss - stored(f"{kind}/loss")),
        "gradients": max((p.grad - gradients[n]).abs().max() for n, p in named.items()),
    }
    for what, error in errors.items():
        check = f"{what}, {'left' if padding else 'right'} padding"
        record(KINDS[kind][1], SAT, check, error)
        assert error < ATOL, what


@pytest.mark.parametrize("kind", KINDS)
def test_blank_loss_sums_what_the_authors_loss_averages(kind):
    rows, _ = batch(kind)
    summed, count = blank_loss(ours(kind), rows)
    assert count == int((rows["targets"] != -100).sum())
    assert abs(summed / count - stored(f"{kind}/loss")) < ATOL


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("chunk", [1, 3])
def test_part_a_once_then_part_b_from_a_cache(kind, chunk, record):
    model, (rows, _) = ours(kind), batch(kind)
    expected, worst = stored(f"{kind}/logits"), 0.0
    for i, n in enumerate(stored("lengths").tolist()):
        cache, context = ContiguousCache.for_model(model, 1), int(rows["context"][i])
        cuts = [0, *range(context, n, chunk), n]
        for start, end in zip(cuts, cuts[1:], strict=False):
            options = {"context": rows["context"][i : i + 1]} if start == 0 else {}
            with torch.no_grad():
                logits = model(
                    rows["tokens"][i : i + 1, start:end],
                    positions=rows["positions"][i : i + 1, ..., start:end],
                    cache=cache,
                    **options,
                )
            worst = max(worst, (logits[0] - expected[i, start:end]).abs().max())
    record(KINDS[kind][1], SAT, "logits, part A cached, then part B", worst)
    assert worst < ATOL


def test_glm_state_dict_is_a_bijection():
    model = ours("glm")
    back, expected = to_hf(model), of("glm", "weight")
    assert back.keys() == expected.keys()
    assert all(torch.equal(back[name], expected[name]) for name in expected)


# --- named wrong versions of GLM and GLM-130B --------------------------------------------------


def _all_causal(model, rows):
    return model(rows["tokens"], positions=rows["positions"])


def _all_visible(model, rows):
    everything = torch.full_like(rows["context"], rows["tokens"].shape[1])
    return run(model, rows | {"context": everything})


def _context_one_short(model, rows):
    return run(model, rows | {"context": rows["context"] - 1})


def _places_in_line(model, rows):
    line = torch.arange(rows["tokens"].shape[1]).expand(len(rows["tokens"]), -1)
    positions = rows["positions"].clone()
    if positions.ndim == 3:
        positions[:, 0] = line
    else:
        positions = line
    return run(model, rows | {"positions": positions})


def _zero_based_block(model, rows):
    positions = rows["positions"].clone()
    positions[:, 1] = (positions[:, 1] - 1).clamp(min=0)
    return run(model, rows | {"positions": positions})


def _axes_swapped(model, rows):
    return run(model, rows | {"positions": rows["positions"].flip(1)})


def _part(change):
    def wrong(model, rows):
        change(model)
        return run(model, rows)

    return wrong


def _no_final_norm(model):
    model.final_norm = torch.nn.Identity()


def _exact_gelu(model):
    for block in model.blocks:
        block.ffn.activation = gelu_exact


def _norms_swapped(model):
    for block in model.blocks:
        block.attention_norm, block.ffn_norm = block.ffn_norm, block.attention_norm


def _alpha_of_deepnet(model):
    for block in model.blocks:
        block.alpha = (2 * len(model.blocks)) ** 0.25


def _no_embedding_norm(model):
    model.embedding_norm = torch.nn.Identity()


def _gated(function):
    def change(model):
        for block in model.blocks:
            block.ffn.gated = function

    return change


def _pairs(model):
    for block in model.blocks:
        block.attention.rotary = Rotary(rotary_frequencies(4), rotate=rotate_pairs)


BOTH = {
    "all causal": _all_causal,
    "part A sees part B": _all_visible,
    "part A one token short": _context_one_short,
    "places in line": _places_in_line,
    "norms swapped": _part(_norms_swapped),
}
WRONG = {
    "glm": BOTH
    | {
        "block positions from 0": _zero_based_block,
        "positions swapped": _axes_swapped,
        "no final norm": _part(_no_final_norm),
        "exact GELU": _part(_exact_gelu),
    },
    "glm_130b": BOTH
    | {
        "alpha of DeepNet": _part(_alpha_of_deepnet),
        "no norm behind the embeddings": _part(_no_embedding_norm),
        "GELU in its tanh form": _part(_gated(geglu_tanh)),
        "SwiGLU": _part(_gated(swiglu)),
        "gate and up swapped": _part(_gated(lambda gate, up: gate * F.gelu(up))),
        "RoPE in pairs": _part(_pairs),
    },
}


@pytest.mark.parametrize(("kind", "name"), [(k, name) for k in WRONG for name in WRONG[k]])
def test_wrong_glm_is_rejected(kind, name):
    rows, real = batch(kind)
    with torch.no_grad():
        logits = WRONG[kind][name](ours(kind), rows)
    error = (logits[real] - stored(f"{kind}/logits")[real]).abs().max()
    assert error > 1e-5, f"{name} goes unnoticed"


# --- GLM-4, and so ChatGLM2, against GlmForCausalLM -----------------------------------------------

V, N = 61, 90
CHAT = {
    "vocab_size": V, "max_seq_len": N, "d_model": 24, "n_layers": 3, "n_heads": 4,
    "n_kv_heads": 2, "d_head": 8, "d_ff": 20,
}  # fmt: skip
HF = {
    "vocab_size": V, "max_position_embeddings": N, "hidden_size": 24, "num_hidden_layers": 3,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "intermediate_size": 20,
    "attention_bias": True, "pad_token_id": None, "bos_token_id": None, "eos_token_id": None,
}  # fmt: skip
PRESETS = {"ChatGLM2": (chatglm2, 1e-5), "GLM-4": (glm4, 1.5625e-7)}


def oracle(eps, perturb):
    config = GlmConfig(**HF, rms_norm_eps=eps)
    config._attn_implementation = "eager"
    theirs = GlmForCausalLM(config).double().eval()
    frequencies = theirs.model.rotary_emb.inv_freq.clone()
    perturb(theirs, seed=1)
    theirs.model.rotary_emb.inv_freq.copy_(frequencies)  # no weight, and not in checkpoints
    return theirs


@pytest.fixture(params=PRESETS)
def pair(request, perturb):
    preset, eps = PRESETS[request.param]
    theirs = oracle(eps, perturb)
    model = preset(**CHAT).eval()
    load_hf(model, theirs.state_dict())
    return request.param, theirs, model


def inputs(padding="none", offset=0, b=3, t=17):
    generator = torch.Generator().manual_seed(2)
    tokens = torch.randint(V, (b, t), generator=generator)
    mask = torch.ones(b, t, dtype=torch.bool)
    for row, pads in enumerate([0, 3, 6]):
        if padding == "left":
            mask[row, :pads] = False
        elif padding == "right":
            mask[row, t - pads :] = False
    positions = (mask.cumsum(1) - 1).clamp(min=0) + offset
    labels = tokens.masked_fill(~mask, -100)
    labels[:, 1:][~mask[:, :-1]] = -100
    return tokens, mask, positions, labels


@pytest.mark.parametrize(
    ("padding", "offset"), [("none", 0), ("none", 9), ("left", 0), ("right", 0)]
)
@pytest.mark.parametrize("ops", [Ops(), TORCH_OPS], ids=["reference", "torch"])
def test_glm4_logits_loss_and_every_gradient(pair, padding, offset, ops, record):
    kind, theirs, model = pair
    model = PRESETS[kind][0](**CHAT, ops=ops)
    load_hf(model, theirs.state_dict())
    tokens, mask, positions, labels = inputs(padding, offset)
    options = {"attention_mask": mask.long(), "position_ids": positions}
    expected = theirs(input_ids=tokens, **options).logits
    logits = model(tokens, positions=positions, attention_mask=None if mask.all() else mask)
    losses = []
    for z, of_model in ((expected, theirs), (logits, model)):
        of_model.zero_grad()
        losses.append(F.cross_entropy(z[:, :-1].flatten(0, 1), labels[:, 1:].flatten()))
        losses[-1].backward()
    gradients = copy.deepcopy(model)
    for to, source in zip(gradients.parameters(), model.parameters(), strict=True):
        to.data = source.grad
    gradients = to_hf(gradients)
    theirs_by_name = dict(theirs.named_parameters())
    assert gradients.keys() == theirs_by_name.keys()
    assert min(p.grad.abs().max() for p in theirs_by_name.values()) > 1e-6
    check = {"none": "offset positions" if offset else "plain", "left": "left padding",
             "right": "right padding"}[padding]  # fmt: skip
    for what, error in {
        "logits": (expected[mask] - logits[mask]).abs().max(),
        "loss": (losses[0] - losses[1]).abs(),
        "gradients": max((p.grad - gradients[n]).abs().max() for n, p in theirs_by_name.items()),
    }.items():
        record(kind, "GlmForCausalLM", f"{what}, {check}", error)
        assert error < ATOL, what


@pytest.mark.parametrize("chunks", [[1] * 17, [9, 1, 7]], ids=str)
@pytest.mark.parametrize("padding", ["none", "left"])
def test_glm4_cached_and_chunked(pair, chunks, padding, record):
    kind, theirs, model = pair
    tokens, mask, positions, _ = inputs(padding)
    cache, logits, start = ContiguousCache.for_model(model, 3), [], 0
    with torch.no_grad():
        expected = theirs(
            input_ids=tokens, attention_mask=mask.long(), position_ids=positions
        ).logits
        for size in chunks:
            part, end = slice(start, start + size), start + size
            options = {"positions": positions[:, part], "attention_mask": mask[:, :end]}
            logits.append(
                model(tokens[:, part], cache=cache, **(options if padding == "left" else {}))
            )
            start = end
    error = (torch.cat(logits, dim=1) - expected)[mask].abs().max()
    check = "logits, one token at a time" if chunks == [1] * 17 else "logits, in chunks"
    record(kind, "GlmForCausalLM", check, error)
    assert error < ATOL


def test_glm4_state_dict_is_a_bijection(pair):
    _, theirs, model = pair
    back, expected = to_hf(model), theirs.state_dict()
    assert back.keys() == expected.keys()
    assert all(torch.equal(back[name], expected[name]) for name in expected)


def test_transformers_continues_an_exported_glm4_with_the_same_64_tokens(perturb, tmp_path):
    model = perturb(glm4(**CHAT), seed=4).eval()
    for block in model.blocks:  # the frequencies are no weights: a checkpoint does not hold them
        block.attention.rotary.frequencies = rotary_frequencies(4)
    save_pretrained(model, tmp_path)
    loaded = GlmForCausalLM.from_pretrained(tmp_path, attn_implementation="eager").eval()
    assert loaded.dtype == torch.float64
    prompt = torch.tensor([[5, 11, 2], [7, 7, 40]])
    expected = loaded.generate(
        prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=64, do_sample=False,
        pad_token_id=0,
    )  # fmt: skip
    tokens, cache, new = prompt, ContiguousCache.for_model(model, 2), prompt
    with torch.no_grad():
        for _ in range(64):
            new = model(new, cache=cache, last_only=True)[:, -1].argmax(-1)[:, None]
            tokens = torch.cat([tokens, new], dim=1)
    assert torch.equal(tokens, expected)
    assert len(set(tokens[0].tolist())) > 3, "a constant continuation would prove little"


def _unmasked(q, k, v, mask=None, *, causal=False, **options):
    return scaled_dot_product_attention(q, k, v, mask, **options)


def _one_ahead(q, k, v, mask=None, *, causal=False, **options):
    t = q.shape[2]
    return scaled_dot_product_attention(q, k, v, causal_mask(t + 1)[1:, :t], **options)


def _tiled(q, k, v, mask=None, **options):
    k, v = (x.repeat(1, q.shape[1] // x.shape[1], 1, 1) for x in (k, v))
    return scaled_dot_product_attention(q, k, v, mask, **options)


def _rotary(model, **options):
    for block in model.blocks:
        width = options.get("width", 4)
        block.attention.rotary = Rotary(
            rotary_frequencies(width), rotate=options.get("rotate", rotate_pairs)
        )


def _biases(model):
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            parameter.data.zero_()


def _halves_of_ffn(model):
    for block in model.blocks:
        block.ffn.gate, block.ffn.up = block.ffn.up, block.ffn.gate


def _attend(function):
    def change(model):
        for block in model.blocks:
            block.attention.attention = function

    return change


WRONG_CHAT = {
    "no mask": _attend(_unmasked),
    "one ahead": _attend(_one_ahead),
    "key heads tiled": _attend(_tiled),
    "no scale": _attend(partial(scaled_dot_product_attention, scale=1.0)),
    "RoPE in halves": partial(_rotary, rotate=rotate_halves),
    "RoPE on the whole head": partial(_rotary, width=8),
    "no biases": _biases,
    "gate and up swapped": _halves_of_ffn,
    "norms swapped": _norms_swapped,
    "no final norm": _no_final_norm,
}


@pytest.mark.parametrize("name", WRONG_CHAT)
def test_wrong_glm4_is_rejected(pair, name):
    _, theirs, model = pair
    WRONG_CHAT[name](model)
    tokens, *_ = inputs()
    with torch.no_grad():
        error = (theirs(input_ids=tokens).logits - model(tokens)).abs().max()
    assert error > 1e-5, f"{name} goes unnoticed"
