"""The 2017 Transformer and Marian against transformers' MarianMTModel, in float64, with noise."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from transformers import MarianConfig, MarianMTModel

from minillm.generation import ContiguousCache
from minillm.generation.search import beam_search, power_penalty
from minillm.hub import load_hf, to_hf
from minillm.models.encdec import (
    Conditioned,
    EncDecConfig,
    EncoderDecoder,
    shift_right,
    transformer_pre_norm,
    translation_loss,
)
from minillm.models.marian import MARIAN_FORMAT, marian
from minillm.nn import TORCH_OPS, Ops, sinusoidal

ATOL = 1e-9
V, N, START, EOS, PAD = 67, 30, 1, 2, 0
SIZES = {"vocab_size": V, "max_seq_len": N, "d_model": 24, "n_layers": 2, "n_heads": 3,
         "d_ff": 40, "dropout": 0.0}  # fmt: skip
HF = {"vocab_size": V, "max_position_embeddings": N, "d_model": 24, "encoder_layers": 2,
      "decoder_layers": 2, "encoder_attention_heads": 3, "decoder_attention_heads": 3,
      "encoder_ffn_dim": 40, "decoder_ffn_dim": 40, "dropout": 0.0, "scale_embedding": True,
      "pad_token_id": PAD, "eos_token_id": EOS, "decoder_start_token_id": START,
      "forced_eos_token_id": None}  # fmt: skip
ORACLE = "MarianMTModel"


@pytest.fixture(autouse=True)
def _float64():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def oracle(kind):
    activation = "swish" if kind == "marian" else "relu"
    config = MarianConfig(**HF, activation_function=activation)
    config._attn_implementation = "eager"
    return MarianMTModel(config).double().eval()


def give_positions(theirs, kind):
    """Its table is made in float32; the same in float64 (as the paper lays it out, for "2017")."""
    table = sinusoidal(N, 24)
    halves = torch.cat([table[:, 0::2], table[:, 1::2]], dim=1)
    made = MarianMTModel(theirs.config).model.encoder.embed_positions.create_weight()
    assert (made - halves).abs().max() < 1e-6
    for side in (theirs.model.encoder, theirs.model.decoder):
        side.embed_positions.weight.data = halves if kind == "marian" else table
    if kind == "2017":
        theirs.final_logits_bias.zero_()


def ours(kind, ops=None):
    if kind == "marian":
        return marian(**SIZES, ops=ops).eval()
    return EncoderDecoder(EncDecConfig(**SIZES), ops=ops).eval()


def load(model, theirs, kind):
    if kind == "marian":
        load_hf(model, theirs.state_dict())
        return
    with_bias = EncoderDecoder(model.config, output_bias=True, hub_format=MARIAN_FORMAT)
    load_hf(with_bias, theirs.state_dict())
    state = with_bias.state_dict()
    assert not state.pop("output_bias").any()
    model.load_state_dict(state)


@pytest.fixture(params=["2017", "marian"])
def pair(request, perturb):
    """The oracle with noise, and our model with its weights."""
    kind = request.param
    theirs = perturb(oracle(kind), seed=1)
    give_positions(theirs, kind)
    model = ours(kind)
    load(model, theirs, kind)
    return kind, theirs, model


def batch(padding, b=3, s=11, t=9):
    """Source, mask, targets (−100 at padding) and what the decoder reads."""
    generator = torch.Generator().manual_seed(2)
    source = torch.randint(3, V, (b, s), generator=generator)
    targets = torch.randint(3, V, (b, t), generator=generator)
    mask = torch.ones(b, s, dtype=torch.bool)
    for row, (pads, after) in enumerate([(0, 0), (3, 2), (6, 4)][:b]):
        if "source" in padding:
            mask[row, s - pads :] = False
        if "target" in padding:
            targets[row, t - after :] = -100
    return source.masked_fill(~mask, PAD), mask, targets


def gradients_by_their_names(model):
    """Gradients of our parameters under the oracle's names; a buffer has none."""
    holder = copy.deepcopy(model)
    for (_, to), (_, source) in zip(
        holder.named_parameters(), model.named_parameters(), strict=True
    ):
        to.data = source.grad
    if holder.output_bias is None:
        holder.register_buffer("output_bias", torch.zeros(1, V))
        holder.hub_format = MARIAN_FORMAT
    return to_hf(holder)


@pytest.mark.parametrize(
    ("padding", "smoothing"),
    [("none", 0.0), ("source", 0.0), ("target", 0.0), ("source and target", 0.1)],
)
@pytest.mark.parametrize("ops", [Ops(), TORCH_OPS], ids=["reference", "torch"])
def test_logits_loss_and_every_gradient(pair, padding, ops, smoothing, record):
    kind, theirs, _ = pair
    model = ours(kind, ops)
    load(model, theirs, kind)
    source, mask, targets = batch(padding)
    inputs = shift_right(targets, START, PAD)
    out = theirs(input_ids=source, attention_mask=mask.long(), labels=targets)
    expected = F.cross_entropy(out.logits.flatten(0, 1), targets.flatten(),
                               label_smoothing=smoothing)  # fmt: skip
    expected.backward()
    logits = model(source, inputs, source_mask=None if mask.all() else mask)
    summed, n = translation_loss(
        model, (source, mask, inputs, targets), label_smoothing=smoothing,
        cross_entropy=ops.cross_entropy,
    )  # fmt: skip
    loss = summed / n
    loss.backward()
    mine = gradients_by_their_names(model)
    pairs = {name: (p.grad, mine[name]) for name, p in theirs.named_parameters() if p.requires_grad}
    assert len(pairs) > 80 - 4
    # a bias on all keys shifts all scores of a query alike: the softmax, and the loss, stay put
    telling = [g for name, (g, _) in pairs.items() if not name.endswith("k_proj.bias")]
    assert min(g.abs().max() for g in telling) > 1e-6, "a gradient that says nothing"
    kept = targets != -100
    check = "plain" if padding == "none" else f"{padding} padded"
    check += ", smoothed labels" if smoothing else ""
    for what, error in [
        ("logits", (out.logits[kept] - logits[kept]).abs().max()),
        ("loss", (expected - loss).abs()),
        ("gradients", max((a - b).abs().max() for a, b in pairs.values())),
    ]:
        record(f"encdec {kind}", ORACLE, f"{what}, {check}", error.item())
        assert error < ATOL, what


@pytest.mark.parametrize("chunks", [[1] * 9, [9], [4, 1, 4]], ids=str)
@pytest.mark.parametrize("ops", [Ops(), TORCH_OPS], ids=["reference", "torch"])
def test_cached_decoding_equals_the_oracle_in_one_go(pair, chunks, ops, record):
    kind, theirs, _ = pair
    model = ours(kind, ops)
    load(model, theirs, kind)
    source, mask, targets = batch("source")
    inputs = shift_right(targets, START, PAD)
    calls = []
    model.decoder[0].cross_attention.key.register_forward_hook(lambda *_: calls.append(1))
    with torch.no_grad():
        expected = theirs(
            input_ids=source, attention_mask=mask.long(), decoder_input_ids=inputs
        ).logits
        memory = model.remember(model.encode(source, source_mask=mask), source_mask=mask)
        cache, parts, start = ContiguousCache.for_model(model, 3, 9), [], 0
        for size in chunks:
            parts.append(model.decode(inputs[:, start : start + size], memory, cache=cache))
            start += size
    error = (torch.cat(parts, dim=1) - expected).abs().max().item()
    name = "one token at a time" if len(chunks) == 9 else "in chunks"
    record(f"encdec {kind}", ORACLE, f"logits, {name}", error)
    assert error < ATOL
    assert len(calls) == 1, "cross-attention's keys are made once, however many tokens follow"


def test_state_dict_is_a_bijection(pair):
    kind, theirs, model = pair
    if kind == "2017":
        model = EncoderDecoder(model.config, output_bias=True, hub_format=MARIAN_FORMAT)
        load_hf(model, theirs.state_dict())
    back = to_hf(model)
    expected = {k: v for k, v in theirs.state_dict().items() if "embed_positions" not in k}
    assert back.keys() == expected.keys()
    assert all(torch.equal(back[name], expected[name]) for name in expected)


@pytest.mark.parametrize("width", [1, 4])
@pytest.mark.parametrize("alpha", [0.0, 1.0])
def test_translates_as_transformers_does(pair, width, alpha):
    """Greedy and beam search with padding; `early_stopping="never"` is its name for our rule."""
    kind, theirs, model = pair
    source, mask, _ = batch("source")
    options = {} if width == 1 else {"length_penalty": alpha, "early_stopping": "never"}
    expected = theirs.generate(
        source, attention_mask=mask.long(), num_beams=width, do_sample=False, max_new_tokens=15,
        eos_token_id=EOS, pad_token_id=PAD, **options,
    )[:, 1:].tolist()  # fmt: skip
    with torch.no_grad():
        memory = model.remember(model.encode(source, source_mask=mask), source_mask=mask)
    start = torch.full((3, 1), START)
    found = beam_search(Conditioned(model, memory), start, width=width, max_new_tokens=15,
                        eos_id=EOS, length_penalty=power_penalty(alpha),
                        early_stopping=width == 1)  # fmt: skip
    for hypotheses, ids in zip(found, expected, strict=True):
        best = list(hypotheses[0].tokens)
        assert best == ids[: len(best)]


def test_pre_norm_equals_torchs_transformer(perturb):
    """nn.Transformer with norm_first; √d, positions and the output layer are added by hand."""
    model = perturb(transformer_pre_norm(**SIZES), seed=3).eval()
    theirs = nn.Transformer(24, 3, 2, 2, 40, dropout=0.0, norm_first=True, batch_first=True).eval()
    state = {}

    def copied(prefix, mine, norms):
        for part, name in (("attention", "self_attn"), ("cross_attention", "multihead_attn")):
            if not hasattr(mine, part):
                continue
            a = getattr(mine, part)
            for kind in ("weight", "bias"):
                joined = torch.cat([getattr(x, kind) for x in (a.query, a.key, a.value)])
                state[f"{prefix}.{name}.in_proj_{kind}"] = joined
                state[f"{prefix}.{name}.out_proj.{kind}"] = getattr(a.output, kind)
        for kind in ("weight", "bias"):
            state[f"{prefix}.linear1.{kind}"] = getattr(mine.ffn.up, kind)
            state[f"{prefix}.linear2.{kind}"] = getattr(mine.ffn.down, kind)
            for i, norm in enumerate(norms, start=1):
                state[f"{prefix}.norm{i}.{kind}"] = getattr(norm, kind)

    for i in range(2):
        e, d = model.encoder[i], model.decoder[i]
        copied(f"encoder.layers.{i}", e, (e.attention_norm, e.ffn_norm))
        copied(f"decoder.layers.{i}", d, (d.attention_norm, d.cross_norm, d.ffn_norm))
    for side, norm in (("encoder", model.encoder_norm), ("decoder", model.decoder_norm)):
        for kind in ("weight", "bias"):
            state[f"{side}.norm.{kind}"] = getattr(norm, kind)
    theirs.load_state_dict(state)
    source, mask, targets = batch("source")
    inputs = shift_right(targets, START, PAD)

    def embed(ids):
        return model.tokens(ids) * 24**0.5 + model.positions.table[: ids.shape[1]]

    out = theirs(
        embed(source), embed(inputs), src_key_padding_mask=~mask, memory_key_padding_mask=~mask,
        tgt_mask=nn.Transformer.generate_square_subsequent_mask(9), tgt_is_causal=True,
    )  # fmt: skip
    logits = model(source, inputs, source_mask=mask)
    assert (out @ model.tokens.weight.T - logits).abs().max() < ATOL


# --- named wrong versions: the comparison above must reject each of them -----------------------


def _no_embedding_scale(model):
    model.embedding_scale = 1


def _scale_by_d(model):
    model.embedding_scale = 24


def _other_sinusoids(model):
    table = model.positions.table
    half = torch.cat([table[:, 0::2], table[:, 1::2]], dim=1)
    back = torch.stack([table[:, :12], table[:, 12:]], dim=-1).flatten(1)
    model.positions.table = half if torch.equal(table, sinusoidal(N, 24)) else back


def _no_cross_mask(model):
    remember = model.remember
    model.remember = lambda encoded, source_mask=None: remember(encoded)


def _no_encoder_mask(model):
    encode = model.encode
    model.encode = lambda source, source_mask=None: encode(source)


def _first_encoder_layer_as_memory(model):
    model.encoder = model.encoder[:1]


def _cross_attention_before_self(model):
    for block in model.decoder:
        block.attention_norm, block.cross_norm = block.cross_norm, block.attention_norm


def _not_tied(model):
    table = model.tokens.weight.detach() + 0.1
    bias = None if model.output_bias is None else model.output_bias[0]
    model.linear = lambda x, weight, _: F.linear(x, table, bias)


def _decoder_sees_the_future(model):
    for block in model.decoder:
        attention = block.attention.forward
        block.attention.forward = lambda x, f=attention, **o: f(x, **{**o, "causal": False})


WRONG = {
    "no_embedding_scale": _no_embedding_scale,
    "scale_by_d_not_its_root": _scale_by_d,
    "other_order_of_sinusoids": _other_sinusoids,
    "padding_visible_to_the_decoder": _no_cross_mask,
    "padding_visible_to_the_encoder": _no_encoder_mask,
    "memory_from_the_first_layer": _first_encoder_layer_as_memory,
    "decoder_norms_swapped": _cross_attention_before_self,
    "output_layer_not_tied": _not_tied,
    "decoder_sees_the_future": _decoder_sees_the_future,
}


@pytest.mark.parametrize("name", [*WRONG, "not_shifted", "smoothing_also_over_padding"])
def test_wrong_version_is_rejected(pair, name):
    _kind, theirs, model = pair
    if name in WRONG:
        WRONG[name](model)
    source, mask, targets = batch("source and target")
    inputs = shift_right(targets, START, PAD)
    with torch.no_grad():
        out = theirs(input_ids=source, attention_mask=mask.long(), labels=targets)
        if name == "not_shifted":
            inputs = targets.masked_fill(targets == -100, PAD)
        kept = targets != -100
        logits = model(source, inputs, source_mask=mask)
        error = (logits[kept] - out.logits[kept]).abs().max()
        if name == "smoothing_also_over_padding":
            padded = targets.masked_fill(~kept, PAD)
            expected = F.cross_entropy(out.logits.mT, targets, label_smoothing=0.1)
            error = (F.cross_entropy(logits.mT, padded, label_smoothing=0.1) - expected).abs()
    assert error > 1e-4, f"{name} goes unnoticed"
