"""T5, T5 1.1 and BART against transformers, in float64, with noise on every weight."""

import copy
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from transformers import BartConfig, BartForConditionalGeneration, T5ForConditionalGeneration
from transformers import T5Config as HFT5Config
from transformers.models.bart.modeling_bart import shift_tokens_right
from transformers.models.t5 import modeling_t5

from minillm.generation import ContiguousCache, generate
from minillm.generation.search import beam_search, power_penalty
from minillm.hub import load_hf, load_pretrained, save_pretrained, to_hf
from minillm.models.bart import bart
from minillm.models.conditional_lm import Conditioned
from minillm.models.encdec import shift_right, translation_loss
from minillm.models.t5 import t5, t5_1_1
from minillm.nn import TORCH_OPS, Ops, gelu_exact, gelu_tanh, scaled_dot_product_attention
from minillm.nn.decoder import PreNormDecoderBlock
from minillm.nn.norms import LayerNorm

ATOL = 1e-9
V, N = 67, 70
START = {"t5": 0, "t5 1.1": 0, "bart": 2}
PAD = {"t5": 0, "t5 1.1": 0, "bart": 1}
EOS = {"t5": 1, "t5 1.1": 1, "bart": 2}
ORACLES = {
    "t5": "T5ForConditionalGeneration",
    "t5 1.1": "T5ForConditionalGeneration",
    "bart": "BartForConditionalGeneration",
}
KINDS = list(ORACLES)
# heads of 5, so that h · p = 15 is not d; distances beyond max_distance occur
T5_SIZES = {"vocab_size": V, "max_seq_len": N, "d_model": 22, "n_layers": 2, "n_heads": 3,
            "d_head": 5, "d_ff": 36, "n_buckets": 8, "max_distance": 7, "dropout": 0.0}  # fmt: skip
BART_SIZES = {"vocab_size": V, "max_seq_len": N, "d_model": 21, "n_layers": 2, "n_heads": 3,
              "d_ff": 36, "dropout": 0.0}  # fmt: skip


class _Torch:
    """PyTorch, but `float32` is float64: lifts the one cast inside T5's norm."""

    def __getattr__(self, name):
        return torch.float64 if name == "float32" else getattr(torch, name)


@pytest.fixture(autouse=True)
def _float64(monkeypatch):
    monkeypatch.setattr(modeling_t5, "torch", _Torch())
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def test_the_lifted_cast_is_what_kept_the_norm_from_float64():
    x, norm = torch.randn(3, 22) + 1, modeling_t5.T5LayerNorm(22)
    exact = x * (x.square().mean(-1, keepdim=True) + 1e-6).rsqrt()
    assert (norm(x) - exact).abs().max() < 1e-14
    modeling_t5.torch = torch  # the fixture's monkeypatch puts its own state back at the end
    assert 1e-10 < (norm(x) - exact).abs().max() < 1e-6


def oracle(kind):
    ids = {"pad_token_id": PAD[kind], "eos_token_id": EOS[kind],
           "decoder_start_token_id": START[kind], "attn_implementation": "eager"}  # fmt: skip
    if kind == "bart":
        config = BartConfig(
            vocab_size=V, max_position_embeddings=N, d_model=21, encoder_layers=2,
            decoder_layers=2, encoder_attention_heads=3, decoder_attention_heads=3,
            encoder_ffn_dim=36, decoder_ffn_dim=36, dropout=0.0, forced_eos_token_id=None, **ids,
        )  # fmt: skip
        return BartForConditionalGeneration(config).double().eval()
    new = {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}
    config = HFT5Config(
        vocab_size=V, d_model=22, d_kv=5, d_ff=36, num_layers=2, num_heads=3, dropout_rate=0.0,
        relative_attention_num_buckets=8, relative_attention_max_distance=7, **ids,
        **(new if kind == "t5 1.1" else {}),
    )  # fmt: skip
    model = T5ForConditionalGeneration(config).double().eval()
    if kind == "t5 1.1":  # transformers 5 ties what it builds; a loaded checkpoint is not tied
        model.lm_head.weight = nn.Parameter(torch.randn(V, 22))
    return model


def ours(kind, ops=None, **changes):
    preset, sizes = {
        "t5": (t5, T5_SIZES), "t5 1.1": (t5_1_1, T5_SIZES), "bart": (bart, BART_SIZES)
    }[kind]  # fmt: skip
    return preset(ops=ops, **{**sizes, **changes}).eval()


@pytest.fixture(params=KINDS)
def pair(request, perturb):
    """The oracle with noise, and our model with its weights."""
    theirs = perturb(oracle(request.param), seed=1)
    model = ours(request.param)
    load_hf(model, theirs.state_dict())
    return request.param, theirs, model


def batch(kind, padding, b=3, s=13, t=11):
    """Source and mask, targets (−100 at padding) and mask of what the decoder reads."""
    generator = torch.Generator().manual_seed(2)
    source = torch.randint(3, V, (b, s), generator=generator)
    targets = torch.randint(3, V, (b, t), generator=generator)
    mask, kept = torch.ones(b, s, dtype=torch.bool), torch.ones(b, t, dtype=torch.bool)
    for row, (pads, after) in enumerate([(0, 0), (3, 2), (6, 4)][:b]):
        if "source right" in padding:
            mask[row, s - pads :] = False
        if "source left" in padding:
            mask[row, :pads] = False
        if "target right" in padding:
            kept[row, t - after :] = False
        if "target left" in padding:
            kept[row, :after] = False
    return source.masked_fill(~mask, PAD[kind]), mask, targets.masked_fill(~kept, -100), kept


def both(kind, theirs, model, padding, ops=None):
    """(theirs, ours) of logits, loss, and {their name: gradients}."""
    ops = ops or Ops()
    source, mask, targets, kept = batch(kind, padding)
    inputs = shift_right(targets, START[kind], PAD[kind])
    assert torch.equal(inputs, shift_tokens_right(targets, PAD[kind], START[kind]))
    read = kept.roll(1, dims=1)  # the start token stands where the target before it would
    read[:, 0] = kept[:, 0] | ("left" not in padding)
    read = read if "target left" in padding else torch.ones_like(read)
    out = theirs(
        input_ids=source, attention_mask=mask.long(), labels=targets,
        decoder_input_ids=inputs, decoder_attention_mask=read.long(),
    )  # fmt: skip
    usable = kept & read if "target left" in padding else kept
    labels = targets.masked_fill(~usable, -100)
    expected = F.cross_entropy(out.logits.flatten(0, 1), labels.flatten())
    if torch.equal(usable, kept):
        assert (out.loss - expected).abs() < 1e-12
    logits = model(source, inputs, source_mask=None if mask.all() else mask,
                   target_mask=None if read.all() else read)  # fmt: skip
    loss = ops.cross_entropy(logits, labels)
    expected.backward()
    loss.backward()
    holder = copy.deepcopy(model)
    for (_, to), (_, frm) in zip(holder.named_parameters(), model.named_parameters(), strict=True):
        to.data = frm.grad
    mine = to_hf(holder)
    gradients = {name: (p.grad, mine[name]) for name, p in theirs.named_parameters()}
    return (out.logits[usable], logits[usable]), (expected, loss), gradients


def worst(pairs):
    return max((a - b).abs().max().item() for a, b in pairs)


PADDINGS = ["none", "source right", "source left", "target right", "target left",
            "source left, target right"]  # fmt: skip


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("ops", [Ops(), TORCH_OPS], ids=["reference", "torch"])
def test_logits_loss_and_every_gradient(pair, padding, ops, record):
    kind, theirs, _ = pair
    model = ours(kind, ops)
    load_hf(model, theirs.state_dict())
    logits, loss, gradients = both(kind, theirs, model, padding, ops)
    assert len(gradients) == sum(1 for _ in theirs.named_parameters()) >= 39
    # a bias on all keys shifts all scores of a query alike: the softmax, and the loss, stay put
    telling = [g for name, (g, _) in gradients.items() if not name.endswith("k_proj.bias")]
    assert min(g.abs().max() for g in telling) > 1e-6, "a gradient that says nothing"
    check = "plain" if padding == "none" else f"padding: {padding}"
    for what, error in [
        ("logits", worst([logits])),
        ("loss", worst([loss])),
        ("gradients", worst(gradients.values())),
    ]:
        record(kind, ORACLES[kind], f"{what}, {check}", error)
        assert error < ATOL, what


@pytest.mark.parametrize("chunks", [[1] * 11, [11], [4, 1, 6]], ids=str)
@pytest.mark.parametrize("padding", ["source right", "source left, target left"])
@pytest.mark.parametrize("ops", [Ops(), TORCH_OPS], ids=["reference", "torch"])
def test_cached_and_chunked_decoding_equals_the_oracle_in_one_go(
    pair, chunks, padding, ops, record
):
    kind, theirs, _ = pair
    model = ours(kind, ops)
    load_hf(model, theirs.state_dict())
    source, mask, targets, kept = batch(kind, padding)
    inputs, read = targets.masked_fill(~kept, PAD[kind]), kept
    calls = []
    model.decoder[0].cross_attention.key.register_forward_hook(lambda *_: calls.append(1))
    with torch.no_grad():
        expected = theirs(
            input_ids=source, attention_mask=mask.long(), decoder_input_ids=inputs,
            decoder_attention_mask=read.long(),
        ).logits  # fmt: skip
        memory = model.remember(model.encode(source, source_mask=mask), source_mask=mask)
        cache, parts, start = ContiguousCache.for_model(model, 3, 11), [], 0
        for size in chunks:
            end = start + size
            options = {} if read.all() else {"target_mask": read[:, :end]}
            parts.append(model.decode(inputs[:, start:end], memory, cache=cache, **options))
            start = end
    error = worst([(torch.cat(parts, dim=1)[read], expected[read])])
    name = "one token at a time" if len(chunks) == 11 else "in chunks"
    record(kind, ORACLES[kind], f"logits, {name}", error)
    assert error < ATOL
    assert len(calls) == 1, "cross-attention's keys are made once, however many tokens follow"


def test_state_dict_is_a_bijection(pair):
    kind, theirs, model = pair
    back, expected = to_hf(model), theirs.state_dict()
    assert back.keys() == expected.keys()
    assert all(torch.equal(back[name], expected[name]) for name in expected)
    numel = sum(p.numel() for p in theirs.parameters())
    assert sum(p.numel() for p in model.parameters()) == numel
    again = ours(kind)
    load_hf(again, back)
    mine = again.state_dict()
    assert all(torch.equal(tensor, mine[name]) for name, tensor in model.state_dict().items())


SOURCE = torch.tensor([[5, 11, 3, 9], [7, 7, 66, 12]])


def lively(kind, perturb):
    """A model with noise, and 64 tokens of it that are not one token over and over."""
    for seed in range(4, 40):
        model = perturb(ours(kind), seed=seed)
        with torch.no_grad():
            model.tokens.weight *= 4 if kind == "bart" else 1
            decoder = Conditioned(model, model.remember(model.encode(SOURCE)))
        found = generate(decoder, torch.full((2, 1), START[kind]), max_new_tokens=64)
        if len(set(found[0].tolist())) > 3:
            return model, found
    raise AssertionError("a constant continuation would prove little")


def test_transformers_loads_an_exported_folder_and_continues_with_the_same_64_tokens(
    pair, perturb, tmp_path
):
    kind, theirs, _ = pair
    model, found = lively(kind, perturb)
    save_pretrained(model, tmp_path)
    loaded = type(theirs).from_pretrained(tmp_path, attn_implementation="eager").eval()
    assert loaded.dtype == torch.float64
    expected = loaded.generate(
        SOURCE, attention_mask=torch.ones_like(SOURCE), max_new_tokens=64, do_sample=False,
        decoder_start_token_id=START[kind], pad_token_id=PAD[kind],
    )  # fmt: skip
    assert torch.equal(found, expected)
    again = load_pretrained(tmp_path)
    assert again.config == model.config
    mine = again.state_dict()
    assert all(torch.equal(tensor, mine[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("width", [1, 3])
def test_searches_as_transformers_does(pair, width):
    kind, theirs, model = pair
    source, mask, *_ = batch(kind, "source left")
    options = {} if width == 1 else {"length_penalty": 1.0, "early_stopping": "never"}
    expected = theirs.generate(
        source, attention_mask=mask.long(), num_beams=width, do_sample=False, max_new_tokens=12,
        decoder_start_token_id=START[kind], eos_token_id=EOS[kind], pad_token_id=PAD[kind],
        **options,
    )[:, 1:].tolist()  # fmt: skip
    with torch.no_grad():
        memory = model.remember(model.encode(source, source_mask=mask), source_mask=mask)
    found = beam_search(Conditioned(model, memory), torch.full((3, 1), START[kind]), width=width,
                        max_new_tokens=12, eos_id=EOS[kind], length_penalty=power_penalty(1.0),
                        early_stopping=width == 1)  # fmt: skip
    for hypotheses, ids in zip(found, expected, strict=True):
        best = list(hypotheses[0].tokens)
        assert best == ids[: len(best)]


def test_translation_loss_is_the_oracles_loss(pair, record):
    kind, theirs, model = pair
    source, mask, targets, _ = batch(kind, "source right, target right")
    expected = theirs(input_ids=source, attention_mask=mask.long(), labels=targets).loss
    inputs = shift_right(targets, START[kind], PAD[kind])
    summed, n = translation_loss(model, (source, mask, inputs, targets))
    record(kind, ORACLES[kind], "loss, by its own labels", (summed / n - expected).abs())
    assert (summed / n - expected).abs() < ATOL


# --- named wrong versions: the comparison above must reject each of them -----------------------


def _scores(model, **options):
    for part in model.modules():
        if hasattr(part, "attention") and callable(part.attention) and hasattr(part, "query"):
            part.attention = partial(scaled_dot_product_attention, **options)


def _no_output_scale(model):
    model.output_scale = 22**-0.5 if model.output_scale == 1 else 1


def _embeddings_scaled(model):
    model.embedding_scale = model.config.d_model**0.5


def _two_sided_buckets_in_the_decoder(model):
    model.decoder_bias.options["bidirectional"] = True


def _one_sided_buckets_in_the_encoder(model):
    model.encoder_bias.options["bidirectional"] = False


def _max_distance(model):
    for bias in (model.encoder_bias, model.decoder_bias):
        bias.options["max_distance"] = 9


def _bias_in_the_first_layer_only(model):
    block = model.encoder[1]
    forward = block.attention.forward
    block.attention.forward = lambda x, **o: forward(x, **{**o, "bias": None})


def _biases_swapped(model):
    model.encoder_bias.weight, model.decoder_bias.weight = (
        model.decoder_bias.weight, model.encoder_bias.weight,
    )  # fmt: skip


def _bias_on_cross_attention(model):
    bias = model.encoder_bias.weight[0][None, :, None, None]
    block = model.decoder[0]
    forward = block.cross_attention.forward

    def biased(x, memory, **options):
        t, s = x.shape[1], memory[0].shape[2]
        near = (torch.arange(s) - torch.arange(t)[:, None]).abs() < 2
        return forward(x, memory, **options, bias=bias * near)

    block.cross_attention.forward = biased


def _mean_removed(model):
    norm = LayerNorm(22, eps=1e-6)
    norm.weight, norm.bias = model.decoder[0].ffn_norm.weight, nn.Parameter(torch.zeros(22))
    model.decoder[0].ffn_norm = norm


def _no_final_norm(model):
    model.encoder_norm = nn.Identity()


def _gate_and_up_swapped(model):
    for block in [*model.encoder, *model.decoder]:
        if hasattr(block.ffn, "gate"):
            block.ffn.gate, block.ffn.up = block.ffn.up, block.ffn.gate
        else:
            block.ffn.activation = gelu_tanh


def _queries_and_keys_swapped(model):
    for block in model.decoder:
        part = block.cross_attention
        part.key, part.value = part.value, part.key


T5_WRONG = {
    "scores_divided_by_root_p": lambda m: _scores(m, scale=5**-0.5),
    "other_output_scale": _no_output_scale,
    "embeddings_scaled": _embeddings_scaled,
    "two_sided_buckets_in_the_decoder": _two_sided_buckets_in_the_decoder,
    "one_sided_buckets_in_the_encoder": _one_sided_buckets_in_the_encoder,
    "wrong_max_distance": _max_distance,
    "bias_in_the_first_layer_only": _bias_in_the_first_layer_only,
    "biases_swapped": _biases_swapped,
    "bias_on_cross_attention": _bias_on_cross_attention,
    "norm_removes_the_mean": _mean_removed,
    "no_final_norm": _no_final_norm,
    "ffn_of_another_kind": _gate_and_up_swapped,
    "cross_keys_and_values_swapped": _queries_and_keys_swapped,
}


def _no_offset(model):
    for positions in (model.positions, model.decoder_positions):
        positions.table.weight.data = positions.table.weight.data.roll(2, 0)


def _one_table_of_positions(model):
    model.decoder_positions = None


def _no_embedding_norm(model):
    model.encoder_embedding_norm = None


def _embedding_norms_swapped(model):
    model.encoder_embedding_norm, model.decoder_embedding_norm = (
        model.decoder_embedding_norm, model.encoder_embedding_norm,
    )  # fmt: skip


def _no_bias_on_logits(model):
    model.output_bias = None


def _tanh(model):
    for block in [*model.encoder, *model.decoder]:
        assert block.ffn.activation is gelu_exact
        block.ffn.activation = gelu_tanh


def _pre_norm(model):
    for block in model.decoder:
        block.__class__ = PreNormDecoderBlock


def _epsilon(model):
    model.encoder[0].attention_norm.eps = 1e-3


BART_WRONG = {
    "scores_not_divided": lambda m: _scores(m, scale=1.0),
    "embeddings_scaled": _embeddings_scaled,
    "positions_without_offset": _no_offset,
    "one_table_of_positions": _one_table_of_positions,
    "no_norm_on_embeddings": _no_embedding_norm,
    "embedding_norms_swapped": _embedding_norms_swapped,
    "no_bias_on_the_logits": _no_bias_on_logits,
    "tanh_form_of_gelu": _tanh,
    "pre_norm_decoder": _pre_norm,
    "wrong_epsilon": _epsilon,
    "cross_keys_and_values_swapped": _queries_and_keys_swapped,
}
WRONG = [(k, n) for k in KINDS for n in (BART_WRONG if k == "bart" else T5_WRONG)]
WRONG += [(k, "decoder_starts_with_the_first_target") for k in KINDS]


@pytest.mark.parametrize(("kind", "name"), WRONG)
def test_wrong_version_is_rejected(kind, name, perturb):
    theirs, model = perturb(oracle(kind), seed=1), ours(kind)
    load_hf(model, theirs.state_dict())
    source, mask, targets, _ = batch(kind, "source right")
    inputs = shift_right(targets, START[kind], PAD[kind])
    with torch.no_grad():
        expected = theirs(input_ids=source, attention_mask=mask.long(), labels=targets).logits
        assert worst([(model(source, inputs, source_mask=mask), expected)]) < ATOL
        if name == "decoder_starts_with_the_first_target":
            inputs = targets
        else:
            (BART_WRONG if kind == "bart" else T5_WRONG)[name](model)
        error = worst([(model(source, inputs, source_mask=mask), expected)])
    assert error > 1e-4, f"{name} goes unnoticed"
