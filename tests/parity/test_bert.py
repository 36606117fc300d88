"""BERT and RoBERTa with all their heads against transformers, in float64, noise on every weight."""

import copy

import pytest
import torch
import torch.nn.functional as F
import transformers as hf

from minillm import assets
from minillm.hub import load_hf, save_pretrained, to_hf
from minillm.models.bert import bert, minilm_l6
from minillm.models.bert_heads import SentenceEncoder, bert_classifier, bert_tagger, embed
from minillm.models.bert_pretraining import bert_for_masked_lm, bert_for_pretraining
from minillm.models.roberta import roberta, roberta_classifier
from minillm.nn import TORCH_OPS, Ops, gelu_tanh
from minillm.tokenizers import WordPieceTokenizer

ATOL = 1e-9
V, N, K = 97, 31, 5
SIZES = {"vocab_size": V, "max_seq_len": N, "d_model": 24, "n_layers": 3, "n_heads": 3, "d_ff": 56}
HF = {"vocab_size": V, "hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 3,
      "intermediate_size": 56, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0,
      "attn_implementation": "eager", "num_labels": K}  # fmt: skip
KINDS = {
    "bert": (hf.BertModel, bert),
    "bert pretraining": (hf.BertForPreTraining, bert_for_pretraining),
    "bert masked lm": (hf.BertForMaskedLM, bert_for_masked_lm),
    "bert classifier": (hf.BertForSequenceClassification, bert_classifier),
    "bert tagger": (hf.BertForTokenClassification, bert_tagger),
    "roberta": (hf.RobertaForMaskedLM, roberta),
    "roberta classifier": (hf.RobertaForSequenceClassification, roberta_classifier),
}


@pytest.fixture(autouse=True)
def _float64():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def oracle(kind):
    cls = KINDS[kind][0]
    if kind.startswith("roberta"):
        options = {"max_position_embeddings": N + 2, "type_vocab_size": 1, "layer_norm_eps": 1e-5}
        config = hf.RobertaConfig(**HF, **options, pad_token_id=1)
    else:
        config = hf.BertConfig(**HF, max_position_embeddings=N)
    options = {"add_pooling_layer": False} if kind == "bert" else {}
    return cls(config, **options).double().eval()


def ours(kind, ops=None):
    head = {"n_labels": K} if "classifier" in kind or "tagger" in kind else {}
    return KINDS[kind][1](**SIZES, **head, dropout=0.0, ops=ops)


@pytest.fixture(params=KINDS)
def pair(request, perturb):
    """The oracle with noise, and our model with the oracle's weights."""
    theirs = perturb(oracle(request.param), seed=1)
    model = ours(request.param)
    load_hf(model, theirs.state_dict())
    return request.param, theirs, model


def inputs(kind, padding="none", offset=0, b=3, t=17):
    """What our model takes; no token is 0 or 1, whose rows get no gradient in transformers."""
    generator = torch.Generator().manual_seed(2)
    tokens = torch.randint(2, V, (b, t), generator=generator)
    mask = torch.ones(b, t, dtype=torch.bool)
    for row, pads in enumerate([0, 3, 6][:b]):
        if padding == "left":
            mask[row, :pads] = False
        elif padding == "right":
            mask[row, t - pads :] = False
    segments = torch.randint(2, (b, t), generator=generator)
    given = {"tokens": tokens, "attention_mask": mask, "segments": segments}
    given["positions"] = (mask.cumsum(1) - 1).clamp(min=0) + offset
    if kind.startswith("roberta"):
        given["segments"] = torch.zeros_like(segments)
    return given


def for_theirs(kind, given):
    positions = given["positions"] + 2 * kind.startswith("roberta")
    return {"input_ids": given["tokens"], "attention_mask": given["attention_mask"].long(),
            "token_type_ids": given["segments"], "position_ids": positions}  # fmt: skip


def outputs(kind, out, mask):
    """What a model says, as a list of (scores at real positions)."""
    if kind == "bert":
        return [(out if isinstance(out, torch.Tensor) else out.last_hidden_state)[mask]]
    if kind == "bert pretraining":
        both = out if isinstance(out, tuple) and not hasattr(out, "loss") else None
        mlm, nsp = both or (out.prediction_logits, out.seq_relationship_logits)
        return [mlm[mask], nsp]
    logits = out if isinstance(out, torch.Tensor) else out.logits
    return [logits if "classifier" in kind else logits[mask]]


def loss_of(scores):
    """Cross-entropy of every output with fixed random targets, a sum as in BERT's pretraining."""
    generator, total = torch.Generator().manual_seed(3), 0.0
    for logits in scores:
        targets = torch.randint(logits.shape[-1], logits.shape[:-1], generator=generator)
        targets[::3] = -100 if len(targets) > 3 else targets[::3]
        total = total + F.cross_entropy(logits, targets)
    return total


def worst(pairs):
    return max((a - b).abs().max().item() for a, b in pairs)


@pytest.mark.parametrize(
    ("padding", "offset"), [("none", 0), ("none", 9), ("left", 0), ("right", 0)]
)
@pytest.mark.parametrize("ops", [Ops(), TORCH_OPS], ids=["reference", "torch"])
def test_outputs_loss_and_every_gradient(pair, padding, offset, ops, record):
    kind, theirs, _ = pair
    model = ours(kind, ops)
    load_hf(model, theirs.state_dict())
    given = inputs(kind, padding, offset)
    mask = given["attention_mask"]
    expected = outputs(kind, theirs(**for_theirs(kind, given)), mask)
    mine = outputs(kind, model(**given), mask)
    losses = loss_of(expected), loss_of(mine)
    for loss in losses:
        loss.backward()
    gradients = copy.deepcopy(model)
    for to, source in zip(gradients.parameters(), model.parameters(), strict=True):
        to.data = source.grad
    gradients = to_hf(gradients)
    pairs = {name: (p.grad, gradients[name]) for name, p in theirs.named_parameters()}
    assert len(pairs) > 50
    # a bias on the keys adds the same to all scores of a query: softmax does not see it
    sizes = {name: g[0].abs().max() for name, g in pairs.items() if not name.endswith("key.bias")}
    assert min(sizes.values()) > 1e-6, "a gradient that says nothing"
    check = {"none": "offset positions" if offset else "plain", "left": "left padding",
             "right": "right padding"}[padding]  # fmt: skip
    for what, error in [
        ("outputs", worst(zip(expected, mine, strict=True))),
        ("loss", worst([losses])),
        ("gradients", worst(pairs.values())),
    ]:
        record(kind, KINDS[kind][0].__name__, f"{what}, {check}", error)
        assert error < ATOL, what


def test_the_pretraining_loss_is_theirs(perturb, record):
    from minillm.data.masking import PreTrainingBatch
    from minillm.models.bert_pretraining import pretraining_loss

    kind = "bert pretraining"
    theirs, model = perturb(oracle(kind), seed=1), ours(kind)
    load_hf(model, theirs.state_dict())
    given = inputs(kind, "right") | {"positions": torch.arange(17).expand(3, 17)}
    targets = given["tokens"].masked_fill(torch.rand(3, 17) > 0.3, -100)
    labels = torch.tensor([1, 0, 1])
    expected = theirs(**for_theirs(kind, given), labels=targets, next_sentence_label=labels).loss
    batch = PreTrainingBatch(
        given["tokens"], targets, given["segments"], given["attention_mask"], labels
    )
    loss, n = pretraining_loss(model, batch)
    assert n == (targets != -100).sum()
    error = abs(loss / n - expected).item()
    record(kind, KINDS[kind][0].__name__, "its own loss, right padding", error)
    assert error < ATOL


def test_without_segments_and_positions_the_defaults_are_theirs(pair):
    kind, theirs, model = pair
    tokens = inputs(kind)["tokens"]
    with torch.no_grad():
        expected = outputs(kind, theirs(input_ids=tokens), torch.ones_like(tokens).bool())
        mine = outputs(kind, model(tokens), torch.ones_like(tokens).bool())
    assert worst(zip(expected, mine, strict=True)) < ATOL


def test_state_dict_is_a_bijection(pair):
    kind, theirs, model = pair
    back, expected = to_hf(model), theirs.state_dict()
    assert back.keys() == expected.keys()
    assert all(torch.equal(back[name], expected[name]) for name in expected)
    numel = sum(p.numel() for p in theirs.parameters())
    assert sum(p.numel() for p in model.parameters()) == numel
    again = ours(kind)
    load_hf(again, back)
    pairs = zip(again.parameters(), model.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def test_transformers_loads_an_exported_folder(pair, perturb, tmp_path, record):
    kind, theirs, _ = pair
    model = perturb(ours(kind), seed=4)
    save_pretrained(model, tmp_path)
    loaded = type(theirs).from_pretrained(tmp_path, attn_implementation="eager").eval()
    assert loaded.dtype == torch.float64
    given = inputs(kind, "left")
    mask = given["attention_mask"]
    with torch.no_grad():
        expected = outputs(kind, loaded(**for_theirs(kind, given)), mask)
        error = worst(zip(expected, outputs(kind, model(**given), mask), strict=True))
    record(kind, KINDS[kind][0].__name__, "outputs of an exported folder", error)
    assert error < ATOL


def test_an_exported_bert_fills_the_same_64_masks(perturb, tmp_path):
    """An encoder continues no text; it fills one blank after the other, each with what it said."""
    kind = "bert masked lm"
    model = perturb(bert_for_masked_lm(**SIZES | {"max_seq_len": 80}, dropout=0.0), seed=5)
    save_pretrained(model, tmp_path)
    loaded = KINDS[kind][0].from_pretrained(tmp_path, attn_implementation="eager").eval()
    filled = []
    for logits in (lambda x: loaded(input_ids=x).logits, model):
        tokens = torch.full((2, 70), 4)
        tokens[:, 64:] = torch.arange(12).view(2, 6) + 5
        with torch.no_grad():
            for place in range(64):
                tokens[:, place] = logits(tokens)[:, place].argmax(-1)
        filled.append(tokens)
    assert torch.equal(*filled)
    assert len(set(filled[0][0].tolist())) > 8, "the same word everywhere would prove little"


# --- the real checkpoint ------------------------------------------------------------------------

TEXTS = [
    "The cat sits on the mat.",
    "A kitten rests on a rug.",
    "Stock prices fell sharply on Tuesday after the central bank raised rates, analysts said.",
    "你好 world, café!",
    "Yes",
]


def test_minilms_embeddings_are_the_references(record):
    torch.set_default_dtype(torch.float32)
    folder = assets.fetch("minilm-l6")
    theirs = hf.BertModel.from_pretrained(folder, attn_implementation="eager").eval()
    fast = hf.AutoTokenizer.from_pretrained(folder)
    batch = fast(TEXTS, padding=True, return_tensors="pt")
    with torch.no_grad():
        hidden = theirs(**batch).last_hidden_state
    weight = batch["attention_mask"][..., None].float()
    expected = F.normalize((hidden * weight).sum(1) / weight.sum(1), dim=-1)

    model = SentenceEncoder(minilm_l6()).eval()
    load_hf(model, hf.modeling_utils.load_state_dict(f"{folder}/model.safetensors"))
    tokenizer = WordPieceTokenizer.from_vocab(f"{folder}/vocab.txt")

    def encode(text):
        return [101, *tokenizer.encode_ordinary(text), 102]

    assert [encode(t) for t in TEXTS] == [fast(t)["input_ids"] for t in TEXTS]
    error = worst([(expected, embed(model, encode, TEXTS, batch_size=2))])
    record("minilm-l6", "BertModel", "embeddings of the real weights, float32", error)
    assert error < 1e-5


# --- named wrong versions: the comparison above must reject each of them -------------------------


def _activation(model):
    for block in model.encoder.blocks:
        block.ffn.activation = gelu_tanh


def _wrong_eps(model):
    model.encoder.embedding_norm.eps = 1e-3


def _no_segments(model):
    model.encoder.segments.weight.data.zero_()


def _segments_swapped(model):
    model.encoder.segments.weight.data = model.encoder.segments.weight.data.flip(0)


def _no_decoder_bias(model):
    model.mlm.bias.data.zero_()


def _head_without_activation(model):
    model.mlm.activation = torch.nn.Identity()


def _head_without_norm(model):
    model.mlm.norm = torch.nn.Identity()


def _untied_table(model):
    table = torch.nn.Parameter(model.encoder.tokens.weight.data.flip(0))
    forward = model.mlm.forward
    model.mlm.forward = lambda hidden, _: forward(hidden, table)


def _pooler_without_tanh(model):
    model.pooler.forward = lambda hidden: model.pooler.dense(hidden[:, 0])


def _pooler_reads_the_last(model):
    model.pooler.forward = lambda hidden: torch.tanh(model.pooler.dense(hidden[:, -1]))


def _pooler_takes_the_mean(model):
    model.pooler.forward = lambda hidden: torch.tanh(model.pooler.dense(hidden.mean(1)))


def _norms_swapped(model):
    for block in model.encoder.blocks:
        block.attention_norm, block.ffn_norm = block.ffn_norm, block.attention_norm


def _causal(model):
    for block in model.encoder.blocks:
        forward = block.attention.forward
        block.attention.forward = lambda x, f=forward, **options: f(x, causal=True, **options)


def _no_embedding_norm(model):
    model.encoder.embedding_norm = torch.nn.Identity()


WRONG = [_activation, _wrong_eps, _no_segments, _segments_swapped, _no_decoder_bias,
         _head_without_activation, _head_without_norm, _untied_table, _pooler_without_tanh,
         _pooler_reads_the_last, _pooler_takes_the_mean, _norms_swapped, _causal,
         _no_embedding_norm]  # fmt: skip


@pytest.mark.parametrize("spoil", WRONG, ids=lambda f: f.__name__.strip("_"))
def test_wrong_version_is_rejected(spoil, perturb):
    kind = "bert pretraining"
    theirs, model = perturb(oracle(kind), seed=1), ours(kind)
    load_hf(model, theirs.state_dict())
    spoil(model)
    given = inputs(kind, "right")
    mask = given["attention_mask"]
    with torch.no_grad():
        expected = outputs(kind, theirs(**for_theirs(kind, given)), mask)
        mine = outputs(kind, model(**given), mask)
    assert worst(zip(expected, mine, strict=True)) > 1e-5, "this mistake goes unnoticed"


def test_roberta_without_the_two_first_rows_is_rejected(perturb):
    theirs, model = perturb(oracle("roberta"), seed=1), ours("roberta")
    load_hf(model, theirs.state_dict())
    model.encoder.positions.offset = 0
    tokens = inputs("roberta")["tokens"]
    with torch.no_grad():
        assert worst([(theirs(input_ids=tokens).logits, model(tokens))]) > 1e-2
