"""Beam search against brute force, against transformers, and named wrong versions."""

import itertools
import math

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from minillm.generation import ContiguousCache, generate, search
from minillm.generation.search import (
    Hypothesis,
    beam_search,
    gnmt_penalty,
    power_penalty,
    translate,
)
from minillm.hub import load_hf
from minillm.models.encdec import Conditioned, EncDecConfig, EncoderDecoder
from minillm.models.gpt import gpt2

PENALTIES = {"none": None, "mean": power_penalty(1.0), "gnmt": gnmt_penalty(0.6),
             "strong": power_penalty(2.0)}  # fmt: skip


def sharpened(model, seed, spread=0.5):
    """Weights large enough that the likeliest sequence is not the greedy one."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            p += spread * torch.randn(p.shape, generator=generator).to(p.dtype)
    return model.double().eval()


def tiny_gpt(vocab_size, seed, max_seq_len=24):
    sizes = {"d_model": 12, "n_layers": 2, "n_heads": 3, "max_seq_len": max_seq_len}
    return sharpened(gpt2(vocab_size=vocab_size, **sizes), seed)


def tiny_translator(seed, vocab_size=7):
    torch.manual_seed(seed)
    config = EncDecConfig(vocab_size, max_seq_len=20, d_model=12, n_layers=2, n_heads=3, d_ff=20)
    return sharpened(EncoderDecoder(config), seed, spread=0.3)


def brute_force(model, prompt, length, eos_id, penalty):
    """Every continuation of at most `length` tokens that ends with eos_id or fills the length."""
    vocab_size, found = model.config.vocab_size, []
    others = [i for i in range(vocab_size) if i != eos_id]
    for n in range(1, length + 1):
        for body in itertools.product(others, repeat=n - 1):
            for last in range(vocab_size) if n == length else [eos_id]:
                ids = torch.tensor([[*prompt, *body, last]])
                with torch.no_grad():
                    log_p = model(ids[:, :-1]).log_softmax(-1)[0, len(prompt) - 1 :]
                total = float(log_p.gather(1, ids[0, len(prompt) :, None]).sum())
                found.append(
                    Hypothesis((*body, last), total, total / (penalty or (lambda n: 1))(n))
                )
    return sorted(found, key=lambda h: -h.score)


@pytest.mark.parametrize("penalty", PENALTIES)
@pytest.mark.parametrize(("vocab_size", "length"), [(3, 4), (4, 3), (2, 5)])
def test_equals_brute_force_when_the_beam_holds_every_prefix(vocab_size, length, penalty):
    for seed in range(4):
        model, prompt = tiny_gpt(vocab_size, seed), [1, 0]
        expected = brute_force(model, prompt, length, vocab_size - 1, PENALTIES[penalty])
        width = vocab_size ** (length - 1)
        found = beam_search(
            model, torch.tensor([prompt]), width=width, max_new_tokens=length,
            eos_id=vocab_size - 1, length_penalty=PENALTIES[penalty],
        )[0]  # fmt: skip
        assert [h.tokens for h in found] == [h.tokens for h in expected[: len(found)]]
        assert len(found) == min(width, len(expected))
        for mine, other in zip(found, expected, strict=False):
            assert mine.score == pytest.approx(other.score, abs=1e-10)
            assert mine.log_prob == pytest.approx(other.log_prob, abs=1e-10)


def test_the_bound_that_stops_a_search_never_changes_its_result(monkeypatch):
    for seed, penalty in itertools.product(range(3), PENALTIES.values()):
        model, options = tiny_gpt(5, seed), {"width": 3, "max_new_tokens": 9, "eos_id": 4}
        prompt = torch.tensor([[1], [2]])
        found = beam_search(model, prompt, length_penalty=penalty, **options)
        with monkeypatch.context() as patch:
            patch.setattr(search, "_settled", lambda *_: False)
            assert beam_search(model, prompt, length_penalty=penalty, **options) == found


@pytest.mark.parametrize("penalty", PENALTIES)
def test_width_one_is_greedy(penalty):
    for seed in range(4):
        model, prompt = tiny_gpt(11, seed), torch.tensor([[1, 5], [2, 3], [7, 7]])
        greedy = generate(model, prompt, max_new_tokens=10, eos_id=4)[:, 2:].tolist()
        found = beam_search(model, prompt, width=1, max_new_tokens=10, eos_id=4,
                            length_penalty=PENALTIES[penalty], early_stopping=True)  # fmt: skip
        for row, (best,) in zip(greedy, found, strict=True):
            assert list(best.tokens) == row[: row.index(4) + 1 if 4 in row else None]
        if penalty == "none":
            assert beam_search(model, prompt, width=1, max_new_tokens=10, eos_id=4) == found


def test_a_beam_finds_likelier_sequences_than_greedy_and_a_wider_one_never_ends_emptyhanded():
    better = 0
    for seed in range(10):
        model, prompt = tiny_gpt(11, seed), torch.tensor([[1, 5]])
        options = {"max_new_tokens": 8, "eos_id": 4}
        greedy = beam_search(model, prompt, width=1, **options)[0][0]
        wide = beam_search(model, prompt, width=6, **options)[0]
        assert len(wide) == 6
        assert len({h.tokens for h in wide}) == 6, "no hypothesis twice"
        assert [h.score for h in wide] == sorted((h.score for h in wide), reverse=True)
        better += wide[0].log_prob > greedy.log_prob + 1e-9
    assert better >= 4


@pytest.mark.parametrize("width", [2, 5])
def test_cache_rows_of_a_batch_and_no_cache_agree(width):
    for seed in range(3):
        model, prompt = tiny_gpt(11, seed), torch.tensor([[1, 5], [2, 3], [7, 7]])
        options = {"width": width, "max_new_tokens": 9, "eos_id": 4,
                   "length_penalty": gnmt_penalty(0.6)}  # fmt: skip
        together = beam_search(model, prompt, **options)
        plain = beam_search(model, prompt, use_cache=False, **options)
        alone = [beam_search(model, row[None], **options)[0] for row in prompt]
        for other in (plain, alone):
            assert [[h.tokens for h in row] for row in other] == [
                [h.tokens for h in row] for row in together
            ]


def hf_beams(model, prompt, **options):
    out = model.generate(
        prompt, attention_mask=torch.ones_like(prompt), do_sample=False, pad_token_id=0,
        return_dict_in_generate=True, output_scores=True, **options,
    )  # fmt: skip
    return out.sequences[:, prompt.shape[1] :].tolist(), out.sequences_scores.tolist()


@pytest.mark.parametrize("alpha", [0.0, 0.6, 1.0, 2.0])
@pytest.mark.parametrize("early", [True, False])
def test_equals_transformers(alpha, early):
    """`early_stopping="never"` is its name for stopping when nothing can overtake."""
    v, eos = 23, 4
    for seed in range(3):
        config = GPT2Config(vocab_size=v, n_positions=24, n_embd=12, n_layer=2, n_head=3,
                            bos_token_id=None, eos_token_id=eos)  # fmt: skip
        theirs = sharpened(GPT2LMHeadModel(config), seed, spread=0.4)
        model = gpt2(vocab_size=v, max_seq_len=24, d_model=12, n_layers=2, n_heads=3).double()
        load_hf(model.eval(), theirs.state_dict())
        prompt = torch.tensor([[1, 5], [2, 3]])
        for width in (1, 2, 4):
            expected, scores = hf_beams(
                theirs, prompt, num_beams=width, num_return_sequences=width, max_new_tokens=10,
                eos_token_id=eos, length_penalty=alpha, early_stopping=early or "never",
            ) if width > 1 else ([], [])  # fmt: skip
            found = beam_search(model, prompt, width=width, max_new_tokens=10, eos_id=eos,
                                length_penalty=power_penalty(alpha),
                                early_stopping=early)  # fmt: skip
            flat = [h for row in found for h in row]
            for mine, ids, score in zip(flat, expected, scores, strict=False):
                assert list(mine.tokens) == ids[: len(mine.tokens)]
                assert set(ids[len(mine.tokens) :]) <= {0, eos}, "filled up"
                assert mine.score == pytest.approx(score, abs=1e-5)  # theirs are float32
            assert width == 1 or len(flat) == len(expected)


# --- the encoder-decoder -------------------------------------------------------------------------


def test_translate_reads_padding_and_every_source_alone():
    model = tiny_translator(0)
    source = torch.tensor([[2, 3, 4, 5], [6, 2, 0, 0], [3, 3, 5, 0]])
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [1, 1, 1, 0]]).bool()
    for width in (1, 3):
        options = {"start_id": 0, "eos_id": 1, "max_new_tokens": 9, "width": width,
                   "length_penalty": gnmt_penalty(1.0)}  # fmt: skip
        together = translate(model, source, source_mask=mask, **options)
        alone = [translate(model, row[m][None], **options)[0]
                 for row, m in zip(source, mask, strict=True)]  # fmt: skip
        assert together == alone
        assert all(1 not in row for row in together)
    assert model.training is False


def test_translator_equals_brute_force_and_encodes_once():
    model = tiny_translator(3, vocab_size=4)
    source = torch.tensor([[2, 3, 1]])
    calls = {"encoder": 0, "key": 0}
    model.encoder[0].register_forward_hook(lambda *_: calls.update(encoder=calls["encoder"] + 1))
    model.decoder[0].cross_attention.key.register_forward_hook(
        lambda *_: calls.update(key=calls["key"] + 1)
    )
    found = translate(model, source, start_id=0, eos_id=1, max_new_tokens=3, width=16)
    assert calls == {"encoder": 1, "key": 1}, "once for the source, not once per token"
    with torch.no_grad():
        decoder = Conditioned(model, model.remember(model.encode(source)))
    best = brute_force(decoder, [0], 3, 1, None)[0]
    assert found[0] == [i for i in best.tokens if i != 1]


def test_the_generation_loop_takes_a_conditioned_decoder():
    model = tiny_translator(1)
    source = torch.tensor([[2, 3, 4, 5], [6, 2, 3, 3]])
    with torch.no_grad():
        decoder = Conditioned(model, model.remember(model.encode(source)))
    start = torch.zeros(2, 1, dtype=torch.long)
    ids = generate(decoder, start, max_new_tokens=8, eos_id=1)[:, 1:].tolist()
    expected = translate(model, source, start_id=0, eos_id=1, max_new_tokens=8)
    assert [row[: row.index(1)] if 1 in row else row for row in ids] == expected


def test_observe_sees_the_tree_grow():
    steps = []
    model = tiny_gpt(11, 1)
    options = {"width": 3, "max_new_tokens": 5, "eos_id": 4}
    found = beam_search(model, torch.tensor([[1]]), observe=steps.append, **options)
    assert [len(step.beams[0]) for step in steps] == list(range(1, len(steps) + 1))
    for before, after in itertools.pairwise(steps):
        assert all(prefix[:-1] in before.beams for prefix in after.beams)
        assert max(after.log_probs) <= max(before.log_probs)
    assert {h.tokens for h in steps[-1].finished} & {h.tokens for h in found[0]} or not steps[
        -1
    ].finished


# --- named wrong versions ------------------------------------------------------------------------


def _differs(penalty=None, width=3, **patches):
    """Whether any of 12 searches comes out differently."""
    for seed in range(12):
        model, prompt = tiny_gpt(11, seed), torch.tensor([[1, 5], [2, 3]])
        options = {"width": width, "max_new_tokens": 8, "eos_id": 4, "early_stopping": width == 1}
        right = beam_search(model, prompt, length_penalty=penalty, **options)
        with pytest.MonkeyPatch.context() as patch:
            for name, value in patches.items():
                patch.setattr(search, name, value)
            wrong = beam_search(model, prompt, length_penalty=penalty, **options)
        if [[h.tokens for h in r] for r in wrong] != [[h.tokens for h in r] for r in right]:
            return True
    return False


def test_cache_that_is_not_reordered_is_caught(monkeypatch):
    model, prompt = tiny_gpt(11, 2), torch.tensor([[1, 5], [2, 3]])
    options = {"width": 3, "max_new_tokens": 8, "eos_id": 4}
    right = beam_search(model, prompt, **options)
    monkeypatch.setattr(ContiguousCache, "reorder", lambda self, rows: None)
    wrong = beam_search(model, prompt, **options)
    assert [[h.score for h in r] for r in wrong] != [[h.score for h in r] for r in right]


def _finish_everything(finished, done, new, top, beam, token, ends, n, last, width, penalty):
    """Ends count wherever they stand, not only among the best `width`."""
    for i, hypotheses in enumerate(finished):
        for j in range(top.shape[1]):
            if not done[i] and (bool(ends[i, j]) or (n == last and j < width)):
                ids = (*new[i * width + int(beam[i, j])].tolist(), int(token[i, j]))
                hypotheses.append(Hypothesis(ids, float(top[i, j]), float(top[i, j]) / penalty(n)))
        hypotheses.sort(key=lambda h: -h.score)
        del hypotheses[width:]


def _keeps_the_latest(finished, done, *rest):
    _RIGHT(finished, done, *rest)
    for hypotheses in finished:
        hypotheses.sort(key=lambda h: -len(h.tokens))


_RIGHT = search._finish


@pytest.mark.parametrize(
    ("name", "patches", "penalty"),
    [
        ("ends_below_the_beam_count", {"_finish": _finish_everything}, power_penalty(2.0)),
        ("longest_wins", {"_finish": _keeps_the_latest}, None),
        ("stops_at_the_first_end", {"_settled": lambda f, *_: bool(f)}, power_penalty(1.0)),
        ("never_ends", {"_finish": lambda *a: _RIGHT(*a) if a[7] == a[8] else None}, None),
    ],
)
def test_wrong_version_is_rejected(name, patches, penalty):
    width = 1 if name == "ends_below_the_beam_count" else 3
    assert _differs(penalty, width, **patches), f"{name} goes unnoticed"


def test_penalties():
    assert gnmt_penalty(0.6)(1) == 1.0
    assert gnmt_penalty(1.0)(7) == 2.0
    assert power_penalty(0.5)(9) == pytest.approx(3.0)
    assert power_penalty(0)(9) == 1.0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"width": 0}, "width is 0"),
        ({"max_new_tokens": 0}, "max_new_tokens is 0"),
        ({"max_new_tokens": 30}, "max_seq_len is 24"),
        ({"tokens": torch.zeros(0, 1, dtype=torch.long)}, "shape"),
    ],
)
def test_errors_name_the_value(change, message):
    options = {"tokens": torch.tensor([[1]]), "width": 2, "max_new_tokens": 3} | change
    with pytest.raises(Exception, match=message):
        beam_search(tiny_gpt(5, 0), **options)


def test_a_model_in_training_mode_is_refused():
    config = EncDecConfig(7, max_seq_len=20, d_model=12, n_layers=1, n_heads=3, dropout=0.1)
    model = EncoderDecoder(config)
    memory = model.remember(model.encode(torch.tensor([[2, 3]])))
    with pytest.raises(ValueError, match="training mode"):
        beam_search(Conditioned(model, memory), torch.tensor([[0]]), width=2, max_new_tokens=3)
    translate(model, torch.tensor([[2, 3]]), start_id=0, eos_id=1, max_new_tokens=3)
    assert model.training, "translate puts the mode back"
    assert math.isfinite(model.tokens.weight.sum().item())
