"""Scores of choices against transformers' loss on each choice alone; the prompt is read once."""

import copy

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from minillm.evaluation.choices import (
    Question,
    ScoredQuestion,
    accuracy,
    answer,
    few_shot_prompt,
    log_likelihoods,
)
from minillm.hub import load_hf
from minillm.models.gpt import gpt2

V, N = 61, 48
PREFIX = [3, 17, 5, 9, 40]
QUESTIONS = [
    ([7, 8, 9], [[11], [12, 13, 14], [15, 16]]),
    ([20], [[1], [2]]),
    ([21, 22], [[4, 4, 4, 4], [5, 5]]),
]


class Letters:
    """A tokenizer of one id a character, told what it was asked."""

    def __init__(self):
        self.asked = []

    def encode(self, text):
        self.asked.append(text)
        return [1 + ord(c) % 59 for c in text]


@pytest.fixture(scope="module")
def pair():
    """The oracle with noise on every weight, and ours with the same, in float64."""
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=V, n_positions=N, n_embd=24, n_layer=2, n_head=3, bos_token_id=None,
        eos_token_id=None,
    )  # fmt: skip
    theirs = GPT2LMHeadModel(config).double().eval()
    ours = gpt2(vocab_size=V, max_seq_len=N, d_model=24, n_layers=2, n_heads=3).double()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    load_hf(ours, theirs.state_dict())
    return theirs, ours


def by_their_loss(theirs, before, choice):
    """Σ log p of the choice: minus transformers' mean loss with all else ignored, times its length.

    transformers computes its loss in float32.
    """
    tokens = torch.tensor([[*before, *choice]])
    labels = tokens.clone()
    labels[:, : len(before)] = -100
    with torch.no_grad():
        return -theirs(input_ids=tokens, labels=labels).loss.item() * len(choice)


@pytest.mark.parametrize("prefix", [[], [3], PREFIX], ids=len)
def test_scores_are_those_of_transformers(pair, prefix):
    theirs, ours = pair
    found = log_likelihoods(ours.eval(), prefix, QUESTIONS)
    for (text, choices), log_p in zip(QUESTIONS, found, strict=True):
        expected = [by_their_loss(theirs, prefix + text, choice) for choice in choices]
        assert log_p.tolist() == pytest.approx(expected, rel=1e-5)
        # and to all digits, from their float64 logits
        for choice, value in zip(choices, log_p.tolist(), strict=True):
            row = torch.tensor([prefix + text + choice])
            with torch.no_grad():
                logits = theirs(input_ids=row).logits[0].log_softmax(-1)
            places = range(row.shape[1] - len(choice), row.shape[1])
            exact = sum(logits[i - 1, row[0, i]].item() for i in places)
            assert abs(value - exact) < 1e-9


def test_a_question_without_text_is_asked_by_the_prompt_alone(pair):
    theirs, ours = pair
    found = log_likelihoods(ours.eval(), PREFIX, [([], [[11], [12, 13]])])[0]
    expected = [by_their_loss(theirs, PREFIX, choice) for choice in ([11], [12, 13])]
    assert found.tolist() == pytest.approx(expected, rel=1e-5)
    with pytest.raises(ValueError, match="nothing stands before the choices"):
        log_likelihoods(ours, [], [([], [[11], [12]])])


def test_questions_do_not_disturb_each_other(pair):
    _, ours = pair
    together = log_likelihoods(ours.eval(), PREFIX, QUESTIONS)
    for question, log_p in zip(QUESTIONS, together, strict=True):
        alone = log_likelihoods(ours, PREFIX, [question])[0]
        assert torch.equal(alone, log_p)


def test_the_prompt_is_read_once(pair):
    _, ours = pair
    read = []
    handle = ours.register_forward_hook(lambda m, given, out: read.append(given[0].numel()))
    log_likelihoods(ours.eval(), PREFIX, QUESTIONS)
    handle.remove()
    texts = sum(len(text) for text, _ in QUESTIONS)
    rest = sum(len(c) * (max(map(len, c)) - 1) for _, c in QUESTIONS)
    assert sum(read) == len(PREFIX) + texts + rest


def wrong_includes_the_text(theirs, prefix, text, choice):
    return by_their_loss(theirs, prefix, text + choice)


def wrong_forgets_the_prompt(theirs, prefix, text, choice):
    return by_their_loss(theirs, text, choice)


def wrong_one_token_late(theirs, prefix, text, choice):
    return by_their_loss(theirs, prefix + text + choice[:1], choice[1:]) if choice[1:] else 0.0


@pytest.mark.parametrize(
    "wrong", [wrong_includes_the_text, wrong_forgets_the_prompt, wrong_one_token_late]
)
def test_wrong_version_is_rejected(pair, wrong):
    theirs, ours = pair
    text, choices = QUESTIONS[0]
    right = log_likelihoods(ours.eval(), PREFIX, [QUESTIONS[0]])[0]
    values = [wrong(theirs, PREFIX, text, choice) for choice in choices]
    assert max(abs(a - b) for a, b in zip(values, right.tolist(), strict=True)) > 1e-2


def test_prompt_and_settings_reach_the_model(pair):
    _, ours = pair
    shown = [Question("Q1 A:", (" no", " yes"), 1), Question("Q2 A:", (" no", " yes"), 0)]
    asked = [Question("Q3 A:", (" no", " yes"), 1)]
    assert few_shot_prompt(shown, instruction="Answer.") == "Answer.\n\nQ1 A: yes\n\nQ2 A: no\n\n"
    assert few_shot_prompt([]) == ""
    tokenizer = Letters()
    scored = answer(ours, tokenizer, asked, examples=shown, separator="\n", start=7)
    assert tokenizer.asked == ["Q1 A: yes\nQ2 A: no\n", "Q3 A:", " no", " yes"]
    ids = Letters().encode
    prefix = [7, *ids("Q1 A: yes\nQ2 A: no\n")]
    exact = log_likelihoods(ours, prefix, [(ids("Q3 A:"), [ids(" no"), ids(" yes")])])
    assert torch.equal(scored[0].log_p, exact[0])
    assert scored[0].n_tokens == (3, 4)
    zero = answer(ours, Letters(), asked, start=7)
    assert not torch.equal(zero[0].log_p, scored[0].log_p)


def test_mode_is_put_back_and_dropout_off():
    torch.manual_seed(0)
    model = gpt2(vocab_size=V, max_seq_len=N, d_model=24, n_layers=2, n_heads=3, dropout=0.5)
    model.train()
    questions = [Question("ab", (" c", " d"), 0)]
    one, two = (answer(model, Letters(), questions)[0].log_p for _ in range(2))
    assert torch.equal(one, two)
    assert model.training


def test_sum_and_means_can_disagree():
    question = Question("?", (" a", " écossais"), 1)
    scored = ScoredQuestion(question, torch.tensor([-2.0, -7.0]), (1, 5))
    assert [scored.prediction(by) for by in ("sum", "token", "byte")] == [0, 1, 1]
    near = ScoredQuestion(question, torch.tensor([-2.0, -9.5]), (1, 5))
    assert near.prediction("byte") == 1, "10 bytes: é has two"
    assert [accuracy([scored, near], by) for by in ("sum", "token")] == [0.0, 1.0]
    with pytest.raises(ValueError, match="no questions"):
        accuracy([])


@pytest.mark.parametrize(("choices", "place"), [((" a",), 0), ((" a", " b"), 2), ((" a", ""), 0)])
def test_bad_questions_are_refused(choices, place):
    with pytest.raises(ValueError, match="choice"):
        Question("?", choices, place)


def test_weights_stay_as_they_are(pair):
    _, ours = pair
    before = copy.deepcopy(ours.state_dict())
    log_likelihoods(ours, PREFIX, QUESTIONS)
    assert all(torch.equal(before[k], v) for k, v in ours.state_dict().items())
