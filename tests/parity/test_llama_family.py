"""LLaMA, its cousins, Falcon and BLOOM against transformers, in float64, noise on every weight.

The references cast norms, softmaxes, angles and slopes to fewer bits; a fixture lifts that.
Baichuan is not in transformers: its 7B is checked as LLaMA with q, k, v packed, its 13B as
transformers' LLaMA with the rotation switched off and transformers' ALiBi in the mask.
"""

import copy

import pytest
import torch
import torch.nn.functional as F
import transformers as hf
from transformers.models.bloom import modeling_bloom

from minillm.generation import ContiguousCache
from minillm.hub import load_hf, save_pretrained, to_hf
from minillm.models.bloom import bloom
from minillm.models.falcon import falcon_7b, falcon_40b, falcon_rw
from minillm.models.llama import llama1, llama3_1
from minillm.models.llama_cousins import (
    baichuan_7b,
    baichuan_13b,
    gemma,
    mistral,
    mistral_0_2,
    qwen2,
    qwen3,
)
from minillm.nn import TORCH_OPS, Ops, Rotary, alibi_attention, rotate_pairs, sliding_window
from minillm.nn import scaled_dot_product_attention as sdpa
from minillm.nn.norms import rms_norm

ATOL = 1e-9
V, N, T = 97, 90, 17
ROPE = {"rope_type": "default", "rope_theta": 500.0}
BASE = {"vocab_size": V, "max_seq_len": N, "n_layers": 2}
ODD = {**BASE, "d_model": 20, "n_heads": 4, "n_kv_heads": 2, "d_head": 6, "d_ff": 28}
HF = {"vocab_size": V, "max_position_embeddings": N, "num_hidden_layers": 2, "pad_token_id": None,
      "bos_token_id": None, "eos_token_id": None}  # fmt: skip
HF_ODD = {**HF, "hidden_size": 20, "num_attention_heads": 4, "num_key_value_heads": 2,
          "head_dim": 6, "intermediate_size": 28, "rope_parameters": ROPE,
          "rms_norm_eps": 1e-3}  # fmt: skip
OURS = {**ODD, "rope_theta": 500.0, "norm_eps": 1e-3}
LLAMA3 = {"rope_type": "llama3", "rope_theta": 2e4, "factor": 4.0, "low_freq_factor": 1.0,
          "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}  # fmt: skip
FULL = {"d_model": 24, "n_heads": 4, "d_ff": 28}  # every query head has its own keys
HF_FULL = {**HF_ODD, "hidden_size": 24, "num_key_value_heads": 4}
FALCON = {**HF, "hidden_size": 24, "num_attention_heads": 6, "ffn_hidden_size": 40,
          "layer_norm_epsilon": 1e-3, "rope_parameters": ROPE}  # fmt: skip
OUR_FALCON = {**BASE, "d_model": 24, "n_heads": 6, "d_ff": 40, "norm_eps": 1e-3}
ROTARY_FALCON = {**OUR_FALCON, "rope_theta": 500.0}


class Baichuan13B(hf.LlamaForCausalLM):
    """transformers' LLaMA, no rotation, and transformers' ALiBi in a mask of its own."""

    def forward(self, input_ids, attention_mask, position_ids=None, **options):
        self.model.rotary_emb.inv_freq.zero_()
        heads, (b, t) = self.config.num_attention_heads, input_ids.shape
        alibi = modeling_bloom.build_alibi_tensor(attention_mask, heads, torch.float64)
        allowed = torch.ones(t, t).tril().bool() & attention_mask[:, None, None].bool()
        bias = alibi.view(b, heads, 1, t).expand(-1, -1, t, -1)
        mask = bias.masked_fill(~allowed, torch.finfo(torch.float64).min)
        return super().forward(input_ids, attention_mask=mask, **options)


FAMILIES = {  # name: ours, its numbers, the class of transformers, its settings
    "llama": (llama1, OURS, hf.LlamaForCausalLM, hf.LlamaConfig(**HF_ODD)),
    "llama tied": (llama1, {**OURS, "tied": True}, hf.LlamaForCausalLM,
                   hf.LlamaConfig(**HF_ODD, tie_word_embeddings=True)),
    "llama 3.1": (llama3_1, {**OURS, "d_head": 10, "rope_theta": 2e4, "rope_factor": 4.0},
                  hf.LlamaForCausalLM,
                  hf.LlamaConfig(**{**HF_ODD, "head_dim": 10, "rope_parameters": LLAMA3})),
    "mistral": (mistral, {**OURS, "window": 5}, hf.MistralForCausalLM,
                hf.MistralConfig(**HF_ODD, sliding_window=5)),
    "mistral 0.2": (mistral_0_2, OURS, hf.MistralForCausalLM,
                    hf.MistralConfig(**HF_ODD, sliding_window=None)),
    "qwen2": (qwen2, {**OURS, "d_model": 24, "tied": False}, hf.Qwen2ForCausalLM,
              hf.Qwen2Config(**{**HF_ODD, "hidden_size": 24})),
    "qwen3": (qwen3, {**OURS, "tied": False}, hf.Qwen3ForCausalLM, hf.Qwen3Config(**HF_ODD)),
    "gemma": (gemma, OURS, hf.GemmaForCausalLM, hf.GemmaConfig(**HF_ODD)),
    "falcon 7B": (falcon_7b, ROTARY_FALCON, hf.FalconForCausalLM, hf.FalconConfig(**FALCON)),
    "falcon 40B": (falcon_40b, {**ROTARY_FALCON, "n_kv_heads": 2}, hf.FalconForCausalLM,
                   hf.FalconConfig(**FALCON, new_decoder_architecture=True, num_kv_heads=2)),
    "falcon RW": (falcon_rw, OUR_FALCON, hf.FalconForCausalLM,
                  hf.FalconConfig(**FALCON, alibi=True, bias=True, multi_query=False,
                                  parallel_attn=False)),
    "bloom": (bloom, {**BASE, "d_model": 36, "n_heads": 12, "norm_eps": 1e-3},
              hf.BloomForCausalLM,
              hf.BloomConfig(vocab_size=V, hidden_size=36, n_layer=2, n_head=12,
                             layer_norm_epsilon=1e-3)),
    "baichuan 7B": (baichuan_7b, {**BASE, **FULL, "norm_eps": 1e-3, "rope_theta": 500.0},
                    hf.LlamaForCausalLM, hf.LlamaConfig(**HF_FULL)),
    "baichuan 13B": (baichuan_13b, {**BASE, **FULL, "norm_eps": 1e-3}, Baichuan13B,
                     hf.LlamaConfig(**HF_FULL)),
}  # fmt: skip
WITHOUT_POSITIONS = ("falcon RW", "bloom", "baichuan 13B")
IN_TRANSFORMERS = [name for name in FAMILIES if "baichuan" not in name]


@pytest.fixture(autouse=True)
def _float64(monkeypatch):
    """Double precision everywhere, also where the references cast to fewer bits."""
    for name in ("float32", "float"):
        monkeypatch.setattr(torch, name, torch.float64)
    for name in ("float", "bfloat16"):
        monkeypatch.setattr(torch.Tensor, name, torch.Tensor.double)
    exact = lambda self, x: F.gelu(x, approximate="tanh")  # noqa: E731
    monkeypatch.setattr(modeling_bloom.BloomGelu, "forward", exact)  # its √(2/π) has 8 digits
    torch.set_default_dtype(torch.float64)
    yield
    monkeypatch.undo()
    torch.set_default_dtype(torch.float32)


def ours(name, ops=None):
    preset, numbers, *_ = FAMILIES[name]
    return preset(**numbers, ops=ops)


def oracle(name):
    """Falcon's eager attention adds ALiBi twice (see the last test), so there it is SDPA's turn."""
    *_, kind, config = FAMILIES[name]
    config = copy.deepcopy(config)
    config._attn_implementation = "sdpa" if name == "falcon RW" else "eager"
    return kind(config).double().eval()


def named(name, tensors):
    """Their tensors; for Baichuan with q, k and v in one, as its files have them."""
    if "baichuan" not in name:
        return dict(tensors)
    tensors = dict(tensors)
    for key in [k for k in tensors if k.endswith("q_proj.weight")]:
        parts = [tensors.pop(key.replace("q_proj", f"{n}_proj")) for n in "qkv"]
        tensors[key.replace("q_proj", "W_pack")] = torch.cat(parts)
    return tensors


@pytest.fixture(params=FAMILIES)
def pair(request, perturb):
    """The oracle with noise, and our model with the oracle's weights."""
    name = request.param
    theirs, model = perturb(oracle(name), seed=1), ours(name)
    load_hf(model, named(name, theirs.state_dict()))
    return name, theirs, model


def inputs(padding, offset=0, b=3, t=T):
    """Tokens, mask, positions and labels; no label where a padded query would have to predict."""
    tokens = torch.randint(V, (b, t), generator=torch.Generator().manual_seed(2))
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


def call(name, theirs, tokens, mask, positions, labels=None):
    placed = {} if name in WITHOUT_POSITIONS else {"position_ids": positions}
    return theirs(input_ids=tokens, attention_mask=mask.long(), labels=labels, **placed)


def worst(pairs):
    return max((a - b).abs().max().item() for a, b in pairs)


def oracle_name(name):
    kind = FAMILIES[name][2].__name__
    return {
        "Baichuan13B": "LlamaForCausalLM",
    }.get(kind, kind)


@pytest.mark.parametrize(
    ("padding", "offset"), [("none", 0), ("none", 9), ("left", 0), ("right", 0)]
)
@pytest.mark.parametrize("ops", [Ops(), TORCH_OPS], ids=["reference", "torch"])
def test_logits_loss_and_every_gradient(pair, padding, offset, ops, record):
    name, theirs, model = pair
    if ops is TORCH_OPS:
        model = ours(name, ops)
        load_hf(model, named(name, theirs.state_dict()))
    tokens, mask, positions, labels = inputs(padding, offset)
    out = call(name, theirs, tokens, mask, positions, labels)
    out.loss.backward()
    logits = model(tokens, positions=positions, attention_mask=None if mask.all() else mask)
    loss = ops.cross_entropy(logits[:, :-1], labels[:, 1:])
    loss.backward()
    gradients = copy.deepcopy(model)
    for (_, to), (_, source) in zip(
        gradients.named_parameters(), model.named_parameters(), strict=True
    ):
        to.data = source.grad
    gradients = to_hf(gradients)
    expected = named(name, {n: p.grad for n, p in theirs.named_parameters()})
    assert len(expected) >= 15
    assert min(g.abs().max() for g in expected.values()) > 1e-6, "a gradient that says nothing"
    check = {"none": "offset positions" if offset else "plain", "left": "left padding",
             "right": "right padding"}[padding]  # fmt: skip
    for what, error in [
        ("logits", worst([(out.logits[mask], logits[mask])])),
        ("loss", worst([(out.loss, loss)])),
        ("gradients", worst((g, gradients[n]) for n, g in expected.items())),
    ]:
        record(name, oracle_name(name), f"{what}, {check}", error)
        assert error < ATOL, what


@pytest.mark.parametrize("chunks", [[1] * T, [9, 1, 7]], ids=["one by one", "in chunks"])
@pytest.mark.parametrize("padding", ["none", "left"])
@torch.no_grad()
def test_cached_and_chunked_decoding_equals_the_oracle_in_one_go(pair, chunks, padding, record):
    name, theirs, model = pair
    tokens, mask, positions, _ = inputs(padding)
    expected = call(name, theirs, tokens, mask, positions).logits
    cache, logits, start = ContiguousCache.for_model(model, batch=3), [], 0
    for size in chunks:
        part, end = slice(start, start + size), start + size
        padded = {"positions": positions[:, part], "attention_mask": mask[:, :end]}
        given = padded if padding == "left" else {}
        logits.append(model(tokens[:, part], cache=cache, **given))
        start = end
    error = worst([(torch.cat(logits, dim=1)[mask], expected[mask])])
    check = "logits, one token at a time" if len(chunks) == T else "logits, in chunks"
    record(name, oracle_name(name), check, error)
    assert error < ATOL


@torch.no_grad()
def test_no_token_sees_a_later_one(pair):
    name, _, model = pair
    tokens = inputs("none")[0]
    logits = model(tokens)
    for t in range(T):
        other = tokens.clone()
        other[:, t] = (other[:, t] + 1) % V
        changed = model(other)
        assert torch.equal(changed[:, :t], logits[:, :t])
        assert not torch.equal(changed[:, t], logits[:, t])


def test_state_dict_is_a_bijection(pair):
    name, theirs, model = pair
    back, expected = to_hf(model), named(name, theirs.state_dict())
    assert back.keys() == expected.keys()
    assert all(torch.equal(back[key], expected[key]) for key in expected)
    numel = sum(p.numel() for p in theirs.parameters())
    assert sum(p.numel() for p in model.parameters()) == numel
    again = ours(name)
    load_hf(again, back)
    assert all(map(torch.equal, again.state_dict().values(), model.state_dict().values()))


@pytest.mark.parametrize("name", IN_TRANSFORMERS)
def test_transformers_loads_an_exported_folder_and_continues_with_the_same_64_tokens(
    name, perturb, tmp_path, monkeypatch
):
    monkeypatch.undo()  # the shipped arithmetic
    torch.set_default_dtype(torch.float64)
    model = perturb(ours(name), seed=4)
    save_pretrained(model, tmp_path)
    attention = "sdpa" if name == "falcon RW" else "eager"
    loaded = FAMILIES[name][2].from_pretrained(tmp_path, attn_implementation=attention).eval()
    assert loaded.dtype == torch.float64
    prompt = torch.tensor([[5, 11, 2], [7, 7, 90]])
    expected = loaded.generate(
        prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=64, do_sample=False,
        pad_token_id=0,
    )  # fmt: skip
    tokens, cache, new = prompt, ContiguousCache.for_model(model, batch=2), prompt
    with torch.no_grad():
        for _ in range(64):
            new = model(new, cache=cache, last_only=True)[:, -1].argmax(-1)[:, None]
            tokens = torch.cat([tokens, new], dim=1)
    assert torch.equal(tokens, expected)
    assert len(set(tokens[0].tolist())) > 3, "a constant continuation would prove little"


# --- named wrong versions: the comparison above must reject each of them -----------------------


def _tiled(q, k, v, mask=None, **options):
    share = q.shape[1] // k.shape[1]
    return sdpa(q, k.repeat(1, share, 1, 1), v.repeat(1, share, 1, 1), mask, **options)


def _attend(operation):
    def change(model):
        for block in model.blocks:
            block.attention.attention = operation

    return change


def _each(path, change):
    def act(model):
        for block in model.blocks:
            change(block.get_submodule(path))

    return act


def _swap(a, b):
    def act(model):
        for block in model.blocks:
            for x, y in zip(
                block.get_submodule(a).parameters(), block.get_submodule(b).parameters(),
                strict=True,
            ):  # fmt: skip
                x.data, y.data = y.data, x.data

    return act


def _rotary(**change):
    def act(model):
        for block in model.blocks:
            old = block.attention.rotary
            numbers = change.get("frequencies", lambda f: f)(old.frequencies)
            block.attention.rotary = Rotary(numbers, rotate=change.get("rotate", old.rotate))

    return act


def _norm_after_rotation(model):
    for block in model.blocks:
        a = block.attention
        rotary, q_norm, k_norm = a.rotary, a.query_norm, a.key_norm
        a.query_norm = a.key_norm = a.rotary = None

        def attend(q, k, v, *rest, rotary=rotary, q_norm=q_norm, k_norm=k_norm, **options):
            places = torch.arange(q.shape[2])[None]
            return sdpa(q_norm(rotary(q, places)), k_norm(rotary(k, places)), v, *rest, **options)

        a.attention = attend


def _attribute(name, value):
    return lambda module: setattr(module, name, value)


def _zero_biases(model):
    for name, p in model.named_parameters():
        if name.endswith("bias"):
            p.data.zero_()


def _unscaled(frequencies):  # the rotation of LLaMA 3 before 3.1
    return 2e4 ** -(torch.arange(5) / 5)


LLAMA_LIKE = ["llama", "mistral", "qwen2", "qwen3", "gemma"]
ROTATED = [*LLAMA_LIKE, "falcon 7B", "falcon 40B", "baichuan 7B"]
WRONG = {
    "rotates neighbors, not halves": (_rotary(rotate=rotate_pairs), ROTATED),
    "rotates the other way": (_rotary(frequencies=torch.neg), ROTATED),
    "base 10000": (_rotary(frequencies=lambda f: 1e4 ** -(torch.arange(len(f)) / len(f))), ROTATED),
    "scaling of 3.1 left out": (_rotary(frequencies=_unscaled), ["llama 3.1"]),
    "key heads tiled": (_attend(_tiled), ["llama", "qwen3", "falcon 40B"]),
    "window one too wide": (_attend(sliding_window(6)), ["mistral"]),
    "window one too narrow": (_attend(sliding_window(4)), ["mistral"]),
    "no window": (_attend(sdpa), ["mistral"]),
    "gate and up swapped": (_swap("ffn.gate", "ffn.up"), LLAMA_LIKE),
    "norms swapped": (_swap("attention_norm", "ffn_norm"), [*LLAMA_LIKE, "falcon 40B", "bloom"]),
    "query and key swapped": (_swap("attention.query", "attention.key"), ["bloom", "baichuan 13B"]),
    "another epsilon": (_each("attention_norm", _attribute("eps", 1e-5)), list(FAMILIES)),
    "biases lost": (_zero_biases, ["qwen2", "falcon RW", "bloom"]),
    "head norms swapped": (_swap("attention.query_norm", "attention.key_norm"), ["qwen3"]),
    "head norms after the rotation": (_norm_after_rotation, ["qwen3"]),
    "weight, not 1 + weight": (
        _each("ffn_norm", _attribute("op", lambda x, w, eps: rms_norm(x, w - 1, eps))), ["gemma"]),
    "tokens not times √d": (_attribute("embedding_scale", 1.0), ["gemma"]),
    "SwiGLU": (_each("ffn", _attribute("gated", lambda a, b: F.silu(a) * b)), ["gemma"]),
    "GELU exact": (
        _each("ffn", _attribute("gated", lambda a, b: F.gelu(a) * b)), ["gemma"]),
    "ALiBi not divided": (_attend(alibi_attention(6)), ["falcon RW"]),
    "ALiBi divided": (_attend(alibi_attention(12, strength=3**-0.5)), ["bloom"]),
    "no ALiBi": (_attend(sdpa), ["bloom", "falcon RW", "baichuan 13B"]),
    "no norm behind the tokens": (_attribute("embedding_norm", None), ["bloom"]),
    "GELU by tanh": (
        _each("ffn", _attribute("activation", lambda x: F.gelu(x, approximate="tanh"))),
        ["falcon 7B"]),
}  # fmt: skip


@pytest.mark.parametrize(
    ("wrong", "name"), [(wrong, name) for wrong, (_, names) in WRONG.items() for name in names]
)
@torch.no_grad()
def test_wrong_version_is_rejected(wrong, name, perturb):
    theirs, model = perturb(oracle(name), seed=1), ours(name)
    load_hf(model, named(name, theirs.state_dict()))
    WRONG[wrong][0](model)
    tokens, mask, positions, _ = inputs("none")
    expected = call(name, theirs, tokens, mask, positions).logits
    assert worst([(expected, model(tokens))]) > 1e-6, f"{wrong} goes unnoticed"
