"""GPT-1's and GPT-2's task heads against transformers, in float64, with noise on every weight."""

import copy

import pytest
import torch
import torch.nn.functional as F
import transformers
from transformers import GPT2Config, OpenAIGPTConfig

from minillm.hub import load_hf, save_pretrained, to_hf
from minillm.models.gpt_heads import (
    fine_tuning_loss,
    gpt1_choices,
    gpt1_classifier,
    gpt2_choices,
    gpt2_classifier,
)

V, N, PAD, LABELS = 61, 29, 0, 5
SIZES = {"vocab_size": V, "max_seq_len": N, "d_model": 24, "n_layers": 2, "n_heads": 3}
HF = {"vocab_size": V, "n_positions": N, "n_embd": 24, "n_layer": 2, "n_head": 3,
      "resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0, "summary_first_dropout": 0.0,
      "pad_token_id": PAD, "bos_token_id": None, "eos_token_id": None}  # fmt: skip
CLASSIFIERS = {
    "gpt1_classifier": (gpt1_classifier, "OpenAIGPTForSequenceClassification"),
    "gpt2_classifier": (gpt2_classifier, "GPT2ForSequenceClassification"),
}
CHOICES = {
    "gpt1_choices": (gpt1_choices, "OpenAIGPTDoubleHeadsModel"),
    "gpt2_choices": (gpt2_choices, "GPT2DoubleHeadsModel"),
}
ALL = CLASSIFIERS | CHOICES


@pytest.fixture(autouse=True)
def _float64():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def build(name, perturb):
    """Their model with noise, ours with its weights."""
    preset, oracle = ALL[name]
    labels = {"num_labels": LABELS} if name in CLASSIFIERS else {}
    config = (OpenAIGPTConfig if name.startswith("gpt1") else GPT2Config)(**HF, **labels)
    config._attn_implementation = "eager"
    theirs = perturb(getattr(transformers, oracle)(config).double().eval(), seed=1)
    ours = preset(**SIZES, **({"n_labels": LABELS} if name in CLASSIFIERS else {})).eval()
    load_hf(ours, theirs.state_dict())
    return theirs, ours, oracle


def inputs(r, padding):
    """Tokens (b, r, t) without the pad id, mask, positions, labels."""
    generator = torch.Generator().manual_seed(2)
    tokens = torch.randint(1, V, (3, r, 13), generator=generator)
    mask = torch.ones_like(tokens, dtype=torch.bool)
    for row, pads in enumerate([0, 3, 6]):
        for place in range(r):
            cut = pads + place if pads else 0
            if padding == "left":
                mask[row, place, :cut] = False
            elif padding == "right" and cut:
                mask[row, place, -cut:] = False
    tokens = tokens.masked_fill(~mask, PAD)
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    return tokens, mask, positions, torch.tensor([1, 0, 2 if r == 3 or r == 1 else 1])


def lm_loss(logits, tokens, mask, average):
    """By hand from transformers' logits: mean over all tokens, or over each text and then texts."""
    rows = []
    for z, ids, real in zip(
        logits.flatten(0, -3), tokens.flatten(0, -2), mask.flatten(0, -2), strict=True
    ):
        ids, z = ids[real], z[real]
        rows.append(F.cross_entropy(z[:-1], ids[1:], reduction="none"))
    return (
        torch.cat(rows).mean()
        if average == "token"
        else torch.stack([row.mean() for row in rows]).mean()
    )


def gradients(ours):
    """Ours under their names."""
    copied = copy.deepcopy(ours)
    for to, source in zip(copied.parameters(), ours.parameters(), strict=True):
        to.data = torch.zeros_like(to) if source.grad is None else source.grad
    return to_hf(copied)


def compare(theirs, ours, losses, scores, name, oracle, check, record):
    theirs.zero_grad()
    ours.zero_grad()
    for loss in losses:
        loss.backward()
    mine = gradients(ours)
    named = dict(theirs.named_parameters())
    assert named.keys() == mine.keys() - {"lm_head.weight"}
    assert len(named) > 20
    errors = {
        "scores": (scores[0] - scores[1]).abs().max().item(),
        "loss": (losses[0] - losses[1]).abs().item(),
        "gradients": max((p.grad - mine[k]).abs().max().item() for k, p in named.items()),
    }
    for what, error in errors.items():
        record(name, oracle, f"{what}, {check}", error)
        assert error < 1e-9, what


@pytest.mark.parametrize("name", CLASSIFIERS)
@pytest.mark.parametrize("padding", ["none", "left", "right"])
@pytest.mark.parametrize("r", [1, 2], ids=["one text", "a pair in both orders"])
def test_classes(perturb, name, padding, r, record):
    theirs, ours, oracle = build(name, perturb)
    tokens, mask, positions, labels = inputs(r, padding)
    # the sum of states through W is the sum of what W gives for each order
    expected = sum(
        theirs(
            input_ids=tokens[:, i], attention_mask=mask[:, i].long(), position_ids=positions[:, i]
        ).logits
        for i in range(r)
    )
    found = ours(tokens, None if mask.all() else mask)
    loss, n = fine_tuning_loss(ours, (tokens, mask, labels), aux_weight=0)
    losses = F.cross_entropy(expected, labels), loss / n
    check = ("plain" if padding == "none" else f"{padding} padding") + (", pairs" * (r == 2))
    compare(theirs, ours, losses, (expected, found), name, oracle, check, record)


@pytest.mark.parametrize("name", CHOICES)
@pytest.mark.parametrize("padding", ["none", "left", "right"])
@pytest.mark.parametrize("average", ["text", "token"])
def test_choices_with_the_auxiliary_loss(perturb, name, padding, average, record):
    theirs, ours, oracle = build(name, perturb)
    tokens, mask, positions, labels = inputs(3, padding)
    places = torch.arange(tokens.shape[2])
    out = theirs(
        input_ids=tokens.flatten(0, 1), attention_mask=mask.flatten(0, 1).long(),
        position_ids=positions.flatten(0, 1), mc_token_ids=(mask * places).argmax(-1).flatten(),
    )  # fmt: skip
    expected, logits = out.mc_logits.view(3, 3), out.logits.view(3, 3, tokens.shape[2], V)
    right = F.cross_entropy(expected, labels) + 0.5 * lm_loss(logits, tokens, mask, average)
    loss, n = fine_tuning_loss(ours, (tokens, mask, labels), average=average)
    found, ours_logits = ours.both(tokens, mask)
    assert (ours_logits - logits)[mask].abs().max() < 1e-9
    check = f"{'plain' if padding == 'none' else padding + ' padding'}, mean by {average}"
    compare(theirs, ours, (right, loss / n), (expected, found), name, oracle, check, record)


def test_without_padding_transformers_own_two_losses_add_up_to_ours(perturb):
    theirs, ours, _ = build("gpt2_choices", perturb)
    tokens, mask, _, labels = inputs(3, "none")
    with torch.no_grad():
        out = theirs(input_ids=tokens, labels=tokens, mc_labels=labels)
        loss, n = fine_tuning_loss(ours, (tokens, mask, labels), aux_weight=0.7)
    assert (out.mc_loss + 0.7 * out.loss).item() == pytest.approx(loss.item() / n, abs=1e-9)


@pytest.mark.parametrize("name", ALL)
def test_state_dict_is_a_bijection_and_a_folder_is_read_by_transformers(perturb, tmp_path, name):
    theirs, ours, oracle = build(name, perturb)
    back, expected = to_hf(ours), theirs.state_dict()
    assert back.keys() == expected.keys()
    assert all(torch.equal(back[key], expected[key]) for key in expected)
    save_pretrained(ours, tmp_path)
    loaded, told = getattr(transformers, oracle).from_pretrained(
        tmp_path, attn_implementation="eager", output_loading_info=True
    )
    assert not told["missing_keys"] and not told["unexpected_keys"], told
    state = loaded.eval().state_dict()
    assert all(torch.equal(state[key], expected[key]) for key in expected)


def _last_column(model, tokens, mask):
    return model(tokens, torch.ones_like(mask) if mask is not None else None)


def _first_token(model, tokens, mask):
    hidden, _ = model._hidden(tokens, mask)
    return model.combine(hidden[:, :, 0], model.score)


def _mean_of_states(model, tokens, mask):
    hidden, _ = model._hidden(tokens, mask)
    states = (hidden * mask[..., None]).sum(2) / mask.sum(-1, keepdim=True)
    return model.combine(states, model.score)


def _one_before_the_last(model, tokens, mask):
    hidden, last = model._hidden(tokens, mask)
    return model._scores(hidden, last - 1)


WRONG = [_last_column, _first_token, _mean_of_states, _one_before_the_last]


@pytest.mark.parametrize("wrong", WRONG, ids=lambda f: f.__name__.strip("_"))
@pytest.mark.parametrize("name", CLASSIFIERS)
def test_wrong_version_is_rejected(perturb, name, wrong):
    theirs, ours, _ = build(name, perturb)
    tokens, mask, positions, _ = inputs(1, "right")
    with torch.no_grad():
        expected = theirs(
            input_ids=tokens[:, 0], attention_mask=mask[:, 0].long(), position_ids=positions[:, 0]
        ).logits
        assert (wrong(ours, tokens, mask) - expected).abs().max() > 1e-2


@pytest.mark.parametrize("padding", ["left", "right"])
def test_the_two_averages_differ_where_texts_differ_in_length(perturb, padding):
    _, ours, _ = build("gpt2_choices", perturb)
    tokens, mask, _, labels = inputs(3, padding)
    with torch.no_grad():
        one, two = (
            fine_tuning_loss(ours, (tokens, mask, labels), average=by)[0].item()
            for by in ("text", "token")
        )
    assert abs(one - two) > 1e-2
