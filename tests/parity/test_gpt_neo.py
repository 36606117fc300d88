"""GPT-Neo and GPT-3, dense and banded layers in turn, against transformers' GPT-Neo in float64."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from transformers import GPTNeoConfig, GPTNeoForCausalLM
from transformers.models.gpt_neo import modeling_gpt_neo

from minillm.generation import ContiguousCache
from minillm.hub import load_hf, save_pretrained, to_hf
from minillm.models.gpt3 import gpt3, gpt_neo
from minillm.nn import scaled_dot_product_attention
from minillm.nn.ops import TORCH_OPS, Ops
from minillm.nn.sparse import alternate, sliding_window, strided

V, N, LAYERS, WINDOW = 53, 41, 5, 4
SIZES = {"vocab_size": V, "max_seq_len": N, "d_model": 24, "n_layers": LAYERS, "n_heads": 3}
OURS = SIZES | {"d_ff": 56, "window": WINDOW}
ORACLE = "GPTNeoForCausalLM"


@pytest.fixture(autouse=True)
def _float64(monkeypatch):
    """Double precision everywhere: GPT-Neo casts queries and keys to what it calls float32."""
    torch.set_default_dtype(torch.float64)
    monkeypatch.setattr(modeling_gpt_neo.torch, "float32", torch.float64)
    yield
    monkeypatch.undo()
    torch.set_default_dtype(torch.float32)


@pytest.fixture
def theirs(perturb):
    """GPT-Neo with noise on every weight; its buffers are masks."""
    config = GPTNeoConfig(
        vocab_size=V, max_position_embeddings=N, hidden_size=24, num_layers=LAYERS, num_heads=3,
        intermediate_size=56, attention_types=[[["global", "local"], 2], [["global"], 1]],
        window_size=WINDOW, bos_token_id=None, eos_token_id=None,
    )  # fmt: skip
    config._attn_implementation = "eager"
    model = perturb(GPTNeoForCausalLM(config).double().eval(), seed=1)
    assert all(buffer.dtype == torch.bool for buffer in model.buffers()), "noise in a mask"
    return model


def as_gpt3(theirs, **changes):
    """GPT-3 with GPT-Neo's weights: queries times √p undo its 1/√p, its extra biases are 0."""
    model, neo = gpt3(**OURS | changes), gpt_neo(**OURS)
    load_hf(neo, theirs.state_dict())
    model.load_state_dict(neo.state_dict(), strict=False)
    for block in model.blocks:
        for part in (block.attention.query, block.attention.key, block.attention.value):
            part.bias.data.zero_()
        block.attention.query.weight.data *= 8**0.5
    return model.eval()


def as_neo(theirs, **changes):
    model = gpt_neo(**OURS | changes)
    load_hf(model, theirs.state_dict())
    return model.eval()


MODELS = pytest.mark.parametrize(
    ("name", "make"), [("gpt_neo", as_neo), ("gpt3", as_gpt3)], ids=["gpt_neo", "gpt3"]
)


def inputs(padding, offset=0, b=3, t=17):
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


def gradients_in_their_names(model):
    """Our gradients through the key map."""
    neo = gpt_neo(**OURS)
    own = dict(model.named_parameters())
    for name, parameter in neo.named_parameters():
        parameter.data = own[name].grad
    return to_hf(neo)


def worst(pairs):
    return max((a - b).abs().max().item() for a, b in pairs)


@MODELS
@pytest.mark.parametrize(
    ("padding", "offset"), [("none", 0), ("none", 9), ("left", 0), ("right", 0)]
)
@pytest.mark.parametrize("ops", [Ops(), TORCH_OPS], ids=["reference", "torch"])
def test_logits_loss_and_every_gradient(theirs, name, make, padding, offset, ops, record):
    model = make(theirs, ops=ops)
    tokens, mask, positions, labels = inputs(padding, offset)
    theirs_logits = theirs(
        input_ids=tokens, attention_mask=mask.long(), position_ids=positions
    ).logits
    logits = model(tokens, positions=positions, attention_mask=None if mask.all() else mask)
    losses = [
        F.cross_entropy(x[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
        for x in (theirs_logits, logits)
    ]
    for loss in losses:
        loss.backward()
    if name == "gpt3":  # ∂/∂(√p W) is ∂/∂W over √p
        for block in model.blocks:
            block.attention.query.weight.grad *= 8**0.5
    mine = gradients_in_their_names(model)
    pairs = [(p.grad, mine[key]) for key, p in theirs.named_parameters()]
    assert len(pairs) == sum(1 for _ in theirs.parameters()) > 50
    assert min(theirs_grad.abs().max() for theirs_grad, _ in pairs) > 1e-7
    check = {"none": "offset positions" if offset else "plain", "left": "left padding",
             "right": "right padding"}[padding]  # fmt: skip
    for what, error in [
        ("logits", worst([(theirs_logits[mask], logits[mask])])),
        ("loss", worst([losses])),
        ("gradients", worst(pairs)),
    ]:
        record(name, ORACLE, f"{what}, {check}", error)
        assert error < 1e-9, what


@MODELS
@pytest.mark.parametrize("chunks", [[1] * 17, [17], [9, 1, 7], [4, 13]], ids=str)
@pytest.mark.parametrize("padding", ["none", "left"])
def test_cached_and_chunked_decoding_equals_the_oracle_in_one_go(
    theirs, name, make, chunks, padding, record
):
    model = make(theirs)
    tokens, mask, positions, _ = inputs(padding)
    cache, logits, start = ContiguousCache.for_model(model, batch=3), [], 0
    with torch.no_grad():
        expected = theirs(
            input_ids=tokens, attention_mask=mask.long(), position_ids=positions
        ).logits
        for part in tokens.split(chunks, dim=1):
            end = start + part.shape[1]
            padded = {"positions": positions[:, start:end], "attention_mask": mask[:, :end]}
            logits.append(model(part, cache=cache, **(padded if padding == "left" else {})))
            start = end
    error = worst([(torch.cat(logits, dim=1)[mask], expected[mask])])
    check = "logits, one token at a time" if chunks == [1] * 17 else "logits, in chunks"
    record(name, ORACLE, check, error)
    assert error < 1e-9


def test_state_dict_is_a_bijection(theirs):
    model, expected = as_neo(theirs), theirs.state_dict()
    back = to_hf(model)
    assert back.keys() == expected.keys()
    assert all(torch.equal(back[name], expected[name]) for name in expected)
    assert sum(p.numel() for p in model.parameters()) == sum(p.numel() for p in theirs.parameters())


@pytest.mark.parametrize("n_layers", [2, 3])
def test_transformers_loads_an_exported_folder_and_continues_with_the_same_64_tokens(
    perturb, tmp_path, n_layers
):
    model = perturb(gpt_neo(**OURS | {"max_seq_len": 80, "n_layers": n_layers}), seed=4).eval()
    save_pretrained(model, tmp_path)
    loaded = GPTNeoForCausalLM.from_pretrained(tmp_path, attn_implementation="eager").eval()
    prompt = torch.tensor([[5, 11, 2], [7, 7, 50]])
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


# --- named wrong versions ----------------------------------------------------------------------

DENSE = partial(scaled_dot_product_attention, scale=1.0)


def _in_turn(*attentions):
    def change(model):
        alternate(model.blocks, *(partial(a, scale=1.0) for a in attentions))

    return change


WRONG = {
    "window_one_less": _in_turn(scaled_dot_product_attention, sliding_window(WINDOW - 1)),
    "window_without_self": _in_turn(scaled_dot_product_attention, sliding_window(WINDOW + 1)),
    "banded_first": _in_turn(sliding_window(WINDOW), scaled_dot_product_attention),
    "all_dense": _in_turn(scaled_dot_product_attention),
    "all_banded": _in_turn(sliding_window(WINDOW)),
    "sparse_transformer_strided": _in_turn(scaled_dot_product_attention, strided(WINDOW)),
    "one_pair_then_dense": lambda model: alternate(model.blocks[2:], DENSE),
    "scaled_by_sqrt_p": lambda model: alternate(
        model.blocks, scaled_dot_product_attention, sliding_window(WINDOW)
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_version_is_rejected(theirs, name):
    model = as_neo(theirs)
    WRONG[name](model)
    tokens, _, positions, _ = inputs("none")
    with torch.no_grad():
        expected = theirs(input_ids=tokens, position_ids=positions).logits
        assert worst([(model(tokens), expected)]) > 1e-3, f"{name} goes unnoticed"
