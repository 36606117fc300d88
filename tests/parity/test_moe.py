"""Mixtral, Qwen2-MoE, DeepSeek-V2 and V3 against transformers, in float64, noise on all weights."""

import copy
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from transformers import (
    DeepseekV2Config,
    DeepseekV2ForCausalLM,
    DeepseekV3Config,
    DeepseekV3ForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
    Qwen2MoeConfig,
    Qwen2MoeForCausalLM,
)
from transformers.models.mixtral.modeling_mixtral import load_balancing_loss_func

from minillm.generation import generate
from minillm.generation.cache import ContiguousCache
from minillm.hub import load_hf, load_pretrained, save_pretrained, to_hf
from minillm.models.deepseek import Yarn, deepseek_v2, deepseek_v3
from minillm.models.moe import mixtral, qwen2_moe
from minillm.nn import TORCH_OPS, Ops, rotate_halves, scaled_dot_product_attention
from minillm.nn.balancing import pooled_switch_loss, record_routing, switch_loss
from minillm.nn.gating import sigmoid_gate, top_k_gate
from minillm.nn.latent import absorbed_attention, expanded_attention

ATOL = 1e-9
V, N = 61, 48
SIZES = {"vocab_size": V, "max_seq_len": N, "d_model": 24, "n_layers": 2, "n_heads": 4}
HF = {
    "vocab_size": V, "max_position_embeddings": N, "hidden_size": 24, "num_hidden_layers": 2,
    "num_attention_heads": 4, "pad_token_id": None, "bos_token_id": None, "eos_token_id": None,
}  # fmt: skip
MLA = {"kv_rank": 12, "q_rank": 10, "d_nope": 6, "d_rope": 4, "d_value": 5, "n_heads": 3}
HF_MLA = {
    "kv_lora_rank": 12, "q_lora_rank": 10, "qk_nope_head_dim": 6, "qk_rope_head_dim": 4,
    "v_head_dim": 5, "num_attention_heads": 3, "num_key_value_heads": 3, "intermediate_size": 34,
    "moe_intermediate_size": 9, "n_routed_experts": 8, "num_experts_per_tok": 3,
    "n_shared_experts": 2, "n_group": 4, "topk_group": 2, "routed_scaling_factor": 1.5,
    "first_k_dense_replace": 1, "rms_norm_eps": 1e-5,
}  # fmt: skip
EXPERTS = {
    "d_ff": 34, "d_expert": 9, "n_experts": 8, "top_k": 3, "n_shared": 2, "n_groups": 4,
    "top_groups": 2, "routed_scale": 1.5, "n_dense": 1, "norm_eps": 1e-5,
}  # fmt: skip
ROPE = {"rope_type": "default", "rope_theta": 100.0}
KINDS = {
    "Mixtral": (
        MixtralForCausalLM,
        partial(MixtralConfig, num_key_value_heads=2, head_dim=10, intermediate_size=14,
                num_local_experts=5, num_experts_per_tok=2, rope_parameters=ROPE),
        partial(mixtral, **SIZES, n_kv_heads=2, d_head=10, d_ff=14, n_experts=5, top_k=2,
                rope_theta=100.0),
    ),
    "Qwen2-MoE": (
        Qwen2MoeForCausalLM,
        partial(Qwen2MoeConfig, num_key_value_heads=2, moe_intermediate_size=7,
                shared_expert_intermediate_size=18, num_experts=6, num_experts_per_tok=3,
                rope_parameters=ROPE),
        partial(qwen2_moe, **SIZES, n_kv_heads=2, d_ff=7, d_shared=18, n_experts=6, top_k=3,
                rope_theta=100.0),
    ),
    "DeepSeek-V2": (
        DeepseekV2ForCausalLM,
        partial(DeepseekV2Config, topk_method="group_limited_greedy", rope_parameters=ROPE),
        partial(deepseek_v2, **{**SIZES, **MLA, **EXPERTS}, rope_theta=100.0),
    ),
    "DeepSeek-V2-Lite": (
        DeepseekV2ForCausalLM,
        partial(DeepseekV2Config, topk_method="greedy", rope_parameters=ROPE),
        partial(deepseek_v2, "lite",
                **{**SIZES, **MLA, **EXPERTS, "q_rank": None, "n_groups": 1, "top_groups": 1},
                rope_theta=100.0),
    ),
    "DeepSeek-V3": (
        DeepseekV3ForCausalLM,
        partial(DeepseekV3Config, rope_parameters=ROPE),
        partial(deepseek_v3, **{**SIZES, **MLA, **EXPERTS}, rope_theta=100.0),
    ),
}  # fmt: skip


def hf_numbers(kind):
    if "DeepSeek" not in kind:
        return HF
    numbers = HF | HF_MLA
    if "Lite" in kind:
        numbers |= {"q_lora_rank": None, "n_group": 1, "topk_group": 1}
    return numbers


@pytest.fixture(autouse=True)
def _float64(monkeypatch):
    """Double precision everywhere: routers, norms, rotations cast to what they call float32."""
    names = {"float32": torch.float64, "float": torch.float64}
    torch.set_default_dtype(torch.float64)
    for name, dtype in names.items():
        monkeypatch.setattr(torch, name, dtype)
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
    yield
    monkeypatch.undo()
    torch.set_default_dtype(torch.float32)


def oracle(kind, **changes):
    model_class, config, _ = KINDS[kind]
    config = config(**{**hf_numbers(kind), **changes})
    config._attn_implementation = "eager"
    config._experts_implementation = "eager"
    return model_class(config).double().eval()


def ours(kind, ops=None, **changes):
    return KINDS[kind][2](ops=ops, **changes).eval()


@pytest.fixture(params=list(KINDS))
def pair(request, perturb):
    """The oracle with noise, and our model with the oracle's weights."""
    theirs = noisy(oracle(request.param), perturb)
    model = ours(request.param)
    load_hf(model, theirs.state_dict())
    return request.param, theirs, model


def noisy(model, perturb, seed=1):
    """Noise everywhere but in the rotation's frequencies, which a checkpoint does not hold."""
    buffers = [b for n, b in model.named_buffers() if n.endswith(("inv_freq", "frequencies"))]
    kept = [buffer.clone() for buffer in buffers]
    perturb(model, seed=seed)
    for buffer, frequencies in zip(buffers, kept, strict=True):
        buffer.copy_(frequencies)
    return model


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


def worst(pairs):
    return max((a - b).abs().max().item() for a, b in pairs)


def gradients_of(model):
    """Gradients under the names of transformers."""
    with_gradients = copy.deepcopy(model)
    for (_, to), (_, source) in zip(
        with_gradients.named_parameters(), model.named_parameters(), strict=True
    ):
        to.data = source.grad
    return to_hf(with_gradients)


@pytest.mark.parametrize(
    ("padding", "offset"), [("none", 0), ("none", 9), ("left", 0), ("right", 0)]
)
@pytest.mark.parametrize("ops", [Ops(), TORCH_OPS], ids=["reference", "torch"])
def test_logits_loss_and_every_gradient(pair, padding, offset, ops, record):
    kind, theirs, _ = pair
    model = ours(kind, ops)
    load_hf(model, theirs.state_dict())
    tokens, mask, positions, labels = inputs(padding, offset)
    out = theirs(input_ids=tokens, attention_mask=mask.long(), position_ids=positions)
    expected = F.cross_entropy(out.logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
    expected.backward()
    logits = model(tokens, positions=positions, attention_mask=None if mask.all() else mask)
    loss = ops.cross_entropy(logits[:, :-1], labels[:, 1:])
    loss.backward()
    mine = gradients_of(model)
    gradients = [(p.grad, mine[name]) for name, p in theirs.named_parameters()]
    assert len(gradients) > 20
    assert min(g[0].abs().max() for g in gradients) > 1e-7, "a gradient that says nothing"
    check = {"none": "offset positions" if offset else "plain", "left": "left padding",
             "right": "right padding"}[padding]  # fmt: skip
    name = KINDS[kind][0].__name__
    for what, error in [
        ("logits", worst([(out.logits[mask], logits[mask])])),
        ("loss", worst([(expected, loss)])),
        ("gradients", worst(gradients)),
    ]:
        record(kind, name, f"{what}, {check}", error)
        assert error < ATOL, what


def empty_cache(model, batch):
    make = getattr(model, "new_cache", partial(ContiguousCache.for_model, model))
    return make(batch, N)


@pytest.mark.parametrize("chunks", [[1] * 17, [9, 1, 7], [4, 13]], ids=str)
@pytest.mark.parametrize("padding", ["none", "left"])
def test_cached_and_chunked_decoding_equals_the_oracle_in_one_go(pair, chunks, padding, record):
    kind, theirs, model = pair
    tokens, mask, positions, _ = inputs(padding)
    with torch.no_grad():
        expected = theirs(
            input_ids=tokens, attention_mask=mask.long(), position_ids=positions
        ).logits
        cache, logits, start = empty_cache(model, 3), [], 0
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
    record(kind, KINDS[kind][0].__name__, check, error)
    assert cache.length == 17
    assert error < ATOL


def test_a_later_token_changes_nothing_before_it(pair):
    _, _, model = pair
    tokens = inputs("none", b=1)[0]
    with torch.no_grad():
        before = model(tokens)
        changed = tokens.clone()
        changed[:, 9] = (changed[:, 9] + 1) % V
        after = model(changed)
    # an expert multiplies its tokens together: the rows around one may change its last digit
    assert (before[:, :9] - after[:, :9]).abs().max() < 1e-12
    assert (before[:, 9:] - after[:, 9:]).abs().amax(-1).min() > 1e-3


def test_state_dict_is_a_bijection(pair):
    kind, theirs, model = pair
    back = to_hf(model)
    expected = theirs.state_dict()
    assert back.keys() == expected.keys()
    assert all(torch.equal(back[name], expected[name]) for name in expected)
    assert sum(p.numel() for p in model.parameters()) == sum(p.numel() for p in theirs.parameters())
    again = ours(kind)
    load_hf(again, back)
    mine = model.state_dict()
    assert all(torch.equal(value, mine[name]) for name, value in again.state_dict().items())


def test_transformers_loads_an_exported_folder_and_continues_with_the_same_64_tokens(
    pair, perturb, tmp_path
):
    kind, theirs, _ = pair
    model = noisy(ours(kind, max_seq_len=80), perturb, seed=4)
    save_pretrained(model, tmp_path)
    loaded = (
        type(theirs)
        .from_pretrained(tmp_path, attn_implementation="eager", experts_implementation="eager")
        .eval()
    )
    assert loaded.dtype == torch.float64
    prompt = torch.tensor([[5, 11, 2], [7, 7, 50]])
    expected = loaded.generate(
        prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=64, do_sample=False,
        pad_token_id=0,
    )  # fmt: skip
    tokens = generate(model, prompt, max_new_tokens=64)
    assert torch.equal(tokens, expected)
    assert len(set(tokens[0].tolist())) > 3, "a constant continuation would prove little"
    again = load_pretrained(tmp_path)
    assert again.config == model.config
    mine = model.state_dict()
    assert all(torch.equal(value, mine[name]) for name, value in again.state_dict().items())


def test_a_folder_that_transformers_wrote_is_read(pair, tmp_path):
    """It holds the experts one by one, as published files do, under other names."""
    _, theirs, model = pair
    theirs.save_pretrained(tmp_path)
    again = load_pretrained(tmp_path)
    mine = model.state_dict()
    assert again.config == model.config
    assert all(torch.equal(value, mine[name]) for name, value in again.state_dict().items())


@pytest.mark.parametrize("padding", ["none", "right"])
def test_balancing_losses_are_those_of_transformers(perturb, padding, record):
    theirs = noisy(oracle("Mixtral"), perturb)
    model = ours("Mixtral")
    load_hf(model, theirs.state_dict())
    tokens, mask, _, _ = inputs(padding)
    out = theirs(tokens, attention_mask=mask.long(), output_router_logits=True)
    with record_routing(model) as routings:
        model(tokens, attention_mask=mask)
    assert len(routings) == len(out.router_logits) == 2
    keep = mask.flatten()
    given = None if padding == "none" else mask.long()
    expected = load_balancing_loss_func(out.router_logits, 5, 2, given)
    error = (pooled_switch_loss(routings, keep) - expected).abs().item()
    record("pooled_switch_loss", "MixtralForCausalLM", "auxiliary loss", error)
    assert error < ATOL
    expected.backward()
    model.zero_grad()
    with record_routing(model) as routings:
        model(tokens, attention_mask=mask)
    pooled_switch_loss(routings, keep).backward()
    gradients = [(theirs.model.layers[i].mlp.gate.weight.grad,
                  model.blocks[i].ffn.router.weight.grad) for i in range(2)]  # fmt: skip
    assert worst(gradients) < ATOL
    # one layer alone: k times ours
    one = load_balancing_loss_func(out.router_logits[:1], 5, 2, given)
    assert abs(2 * switch_loss(routings[0], keep) - one) < ATOL
    assert abs(switch_loss(routings[0], keep) - switch_loss(routings[0])) > 1e-3 or mask.all()


@pytest.mark.parametrize("kind", ["DeepSeek-V2", "DeepSeek-V3"])
def test_yarn_as_released(kind, perturb, record):
    """Both were released with YaRN: slower rotations, and a temperature on the whole score."""
    rope = {
        "rope_type": "yarn", "rope_theta": 100.0, "factor": 4.0, "beta_fast": 32, "beta_slow": 1,
        "original_max_position_embeddings": 16, "mscale": 0.707, "mscale_all_dim": 0.707,
    }  # fmt: skip
    theirs = noisy(oracle(kind, rope_parameters=rope), perturb)
    model = ours(kind, yarn=Yarn(4.0, 16, 0.707))
    load_hf(model, theirs.state_dict())
    tokens, _, positions, _ = inputs("none", offset=20)
    with torch.no_grad():
        expected = theirs(tokens, position_ids=positions).logits
        error = worst([(expected, model(tokens, positions=positions))])
        plain = ours(kind)
        load_hf(plain, theirs.state_dict())
        assert worst([(expected, plain(tokens, positions=positions))]) > 1e-3
    record(kind, KINDS[kind][0].__name__, "logits, YaRN", error)
    assert error < ATOL


@pytest.mark.parametrize("core", [expanded_attention, absorbed_attention])
def test_both_forms_of_latent_attention_match(perturb, core, record):
    theirs = noisy(oracle("DeepSeek-V3"), perturb)
    model = ours("DeepSeek-V3")
    load_hf(model, theirs.state_dict())
    for block in model.blocks:
        block.attention.core = core
    tokens, mask, positions, _ = inputs("left")
    with torch.no_grad():
        expected = theirs(tokens, attention_mask=mask.long(), position_ids=positions).logits
        logits = model(tokens, attention_mask=mask, positions=positions)
    error = worst([(expected[mask], logits[mask])])
    record("DeepSeek-V3", "DeepseekV3ForCausalLM", f"logits, {core.__name__}", error)
    assert error < ATOL


# --- named wrong versions: the comparison above must reject each of them -----------------------


def _each_router(change):
    def apply(model):
        for block in model.blocks:
            if hasattr(block.ffn, "router"):
                change(block.ffn)

    return apply


def _each_attention(change):
    def apply(model):
        for block in model.blocks:
            change(block.attention)

    return apply


def _gate(**changes):
    def change(ffn):
        ffn.router.gate = partial(ffn.router.gate, **changes)

    return change


def _biased_weights(ffn):
    """V3 as it is often misread: the bias enters the weights too."""
    gate = ffn.router.gate

    def wrong(logits, bias):
        routing = gate(logits, bias=bias)
        weights = (routing.scores + bias) * routing.sent
        weights = weights / weights.sum(-1, keepdim=True) * 1.5
        return type(routing)(routing.logits, routing.scores, routing.sent, weights)

    ffn.router.gate = wrong


def _best_one(ffn):
    """Groups of V3 ranked by their best expert, as in V2."""
    from minillm.nn import gating

    def wrong(logits, bias):
        choice = logits.sigmoid() + bias
        allowed = gating.best_groups(choice, 4, 2, best=1)
        sent = gating.chosen(choice.masked_fill(~allowed, -torch.inf), 3)
        return gating._keep(logits, logits.sigmoid(), sent, True, 1.5)

    ffn.router.gate = wrong


def _softmax_after(ffn):
    ffn.router.gate = lambda logits, bias=None: top_k_gate(logits, 3)


def _no_bias(ffn):
    ffn.router.bias.zero_()


def _swap_gate_and_up(ffn):
    ffn.experts.gate, ffn.experts.up = ffn.experts.up, ffn.experts.gate


def _no_shared(ffn):
    ffn.shared = None


def _ungated_shared(ffn):
    ffn.shared = ffn.shared.ffn


def _scale(attention):
    attention.scale = attention.d_nope**-0.5


def _halves(attention):
    attention.rotary.rotate = rotate_halves


def _no_latent_norm(attention):
    attention.latent_norm = torch.nn.Identity()


def _norm_eps(attention):
    attention.latent_norm.eps = attention.query_norm.eps = 1e-5


def _tile_heads(attention):
    def tiled(q, k, v, mask=None, **options):
        return scaled_dot_product_attention(
            q, k.repeat(1, 2, 1, 1), v.repeat(1, 2, 1, 1), mask, **options
        )

    attention.attention = tiled


WRONG = [
    ("Mixtral", "not_renormalized", _each_router(_gate(renormalize=False))),
    ("Mixtral", "one_expert", _each_router(_gate(k=1))),
    ("Mixtral", "gate_and_up_swapped", _each_router(_swap_gate_and_up)),
    ("Mixtral", "key_heads_tiled", _each_attention(_tile_heads)),
    ("Qwen2-MoE", "renormalized", _each_router(_gate(renormalize=True))),
    ("Qwen2-MoE", "no_shared_expert", _each_router(_no_shared)),
    ("Qwen2-MoE", "shared_expert_without_gate", _each_router(_ungated_shared)),
    ("DeepSeek-V2", "no_groups", _each_router(_gate(n_groups=1, top_groups=1))),
    ("DeepSeek-V2", "no_scale", _each_router(_gate(scale=1.0))),
    ("DeepSeek-V2", "score_scale_without_rope", _each_attention(_scale)),
    ("DeepSeek-V2", "rotated_in_halves", _each_attention(_halves)),
    ("DeepSeek-V2", "latent_not_normalized", _each_attention(_no_latent_norm)),
    ("DeepSeek-V2", "model_eps_in_latent_norms", _each_attention(_norm_eps)),
    ("DeepSeek-V3", "bias_in_the_weights", _each_router(_biased_weights)),
    ("DeepSeek-V3", "bias_left_out", _each_router(_no_bias)),
    ("DeepSeek-V3", "groups_by_their_best", _each_router(_best_one)),
    ("DeepSeek-V3", "softmax_in_place_of_sigmoid", _each_router(_softmax_after)),
    ("DeepSeek-V3", "no_shared_experts", _each_router(_no_shared)),
]


@pytest.mark.parametrize(("kind", "name", "change"), WRONG, ids=[f"{k}-{n}" for k, n, _ in WRONG])
def test_wrong_version_is_rejected(kind, name, change, perturb):
    theirs = noisy(oracle(kind), perturb)
    model = ours(kind)
    load_hf(model, theirs.state_dict())
    tokens = inputs("none")[0]
    with torch.no_grad():
        expected = theirs(tokens).logits
        assert worst([(expected, model(tokens))]) < ATOL
        change(model)
        assert worst([(expected, model(tokens))]) > 1e-7, f"{name} goes unnoticed"


def test_sigmoid_gate_is_the_default_of_v3():
    assert ours("DeepSeek-V3").blocks[1].ffn.router.gate.func is sigmoid_gate
