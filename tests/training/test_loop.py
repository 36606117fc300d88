"""The loop: one update equals plain PyTorch's, accumulation by token, records, errors."""

import math
from functools import partial

import pytest
import torch
from torch import nn

from minillm.data import TokenWindows
from minillm.models.gpt import GPT, GPTConfig
from minillm.training import AdamW, clip_gradients, evaluated, next_token_loss, train
from minillm.training.schedules import warmup_cosine

VOCAB = 13


def gpt(seed=0, **options):
    torch.manual_seed(seed)
    sizes = {"vocab_size": VOCAB, "max_seq_len": 16, "d_model": 12, "n_layers": 2, "n_heads": 3}
    model = GPT(GPTConfig(**sizes | options)).double()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.3 * torch.randn_like(p))
    return model


def windows(batch_size=4, seed=0):
    return TokenWindows(torch.arange(400) % VOCAB, 8, batch_size, seed)


def ragged(lengths, seed=0):
    """Batches whose targets count only in part: lengths[i][j] tokens in row j of batch i."""
    generator = torch.Generator().manual_seed(seed)
    batches = []
    for rows in lengths:
        tokens = torch.randint(VOCAB, (len(rows), 9), generator=generator)
        targets = tokens[:, 1:].clone()
        for row, n in enumerate(rows):
            targets[row, n:] = -100
        batches.append((tokens[:, :-1], targets))
    return batches


def flat(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def run(model, batches, steps, **options):
    optimizer = options.pop("optimizer", None) or AdamW(model.parameters(), lr=1e-2)
    return list(train(model, batches, optimizer=optimizer, steps=steps, **options))


def test_equals_a_plain_pytorch_loop():
    ours, plain, data = gpt(), gpt(), windows()
    schedule = warmup_cosine(12, 3)
    records = run(ours, data, 12, schedule=schedule, clip=2.0)
    optimizer = torch.optim.AdamW(plain.parameters(), lr=1e-2)
    for step in range(12):
        for group in optimizer.param_groups:
            group["lr"] = 1e-2 * schedule(step)
        inputs, targets = data[step]
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(plain(inputs).flatten(0, 1), targets.flatten())
        loss.backward()
        gradients = [p.grad for p in plain.parameters()]
        norm = nn.utils.get_total_norm(gradients)
        for gradient in gradients:  # not clip_grad_norm_, which divides by norm + 1e-6
            gradient.mul_(min(1.0, 2.0 / norm.item()))
        optimizer.step()
        assert records[step].loss == pytest.approx(loss.item(), abs=1e-12)
        assert records[step].grad_norm == pytest.approx(norm.item(), rel=1e-9)
        assert records[step].lr == pytest.approx(1e-2 * schedule(step))
        assert (records[step].step, records[step].tokens) == (step + 1, 32)
        assert records[step].seconds > 0 and records[step].eval is None
    assert min(r.grad_norm for r in records) < 2 < max(r.grad_norm for r in records)
    torch.testing.assert_close(flat(ours), flat(plain), atol=1e-11, rtol=0)


LENGTHS = [[8, 8], [1, 0], [5, 2], [3, 3]]


def one_batch(batches):
    inputs, targets = zip(*batches, strict=True)
    return [(torch.cat(inputs), torch.cat(targets))]


def test_accumulation_equals_one_large_batch():
    batches = ragged(LENGTHS)
    one, four = gpt(), gpt()
    [whole] = run(one, one_batch(batches), 1, clip=None)
    [parts] = run(four, batches, 1, accumulate=4, clip=None)
    assert parts.tokens == whole.tokens == sum(map(sum, LENGTHS))
    assert parts.loss == pytest.approx(whole.loss, abs=1e-12)
    assert parts.grad_norm == pytest.approx(whole.grad_norm, abs=1e-10)
    torch.testing.assert_close(flat(four), flat(one), atol=1e-9, rtol=0)


def mean_then_mean(model, batch):
    """The wrong version: the mean of each micro-batch counts as one."""
    loss, count = next_token_loss(model, batch)
    return loss / count, 1


def test_wrong_version_accumulation_by_batch_mean_is_caught():
    batches = ragged(LENGTHS)
    [right] = run(gpt(), one_batch(batches), 1, clip=None)
    [wrong] = run(gpt(), batches, 1, accumulate=4, clip=None, loss_fn=mean_then_mean)
    assert abs(wrong.loss - right.loss) > 0.01
    assert abs(wrong.grad_norm - right.grad_norm) > 0.01


def test_each_update_takes_its_own_batches():
    seen = []

    class Spy:
        def __getitem__(self, index):
            seen.append(index)
            return windows()[index]

    run(gpt(), Spy(), 5, accumulate=3, start=3)
    assert seen == list(range(9, 15))


def test_stops_and_resumes_with_the_same_data_and_rates():
    schedule = warmup_cosine(10, 2)
    straight, broken = gpt(), gpt()
    whole = run(straight, windows(), 10, schedule=schedule)
    optimizer = AdamW(broken.parameters(), lr=1e-2)
    options = {"optimizer": optimizer, "schedule": schedule}
    first = []
    for record in train(broken, windows(), steps=10, **options):
        first.append(record)
        if record.step == 4:
            break
    rest = run(broken, windows(), 10, start=first[-1].step, **options)
    assert torch.equal(flat(broken), flat(straight))
    strip = lambda records: [(r.step, r.loss, r.lr, r.grad_norm) for r in records]  # noqa: E731
    assert strip(first + rest) == strip(whole)


def test_learns():
    records = run(gpt(), windows(8), 60, schedule=warmup_cosine(60, 5))
    assert records[-1].loss < 0.1 * records[0].loss


def test_evaluation_is_in_eval_mode_and_without_gradients():
    model = gpt(dropout=0.5)
    model.blocks[0].eval()  # a part that was frozen in this mode on purpose is put back as it was
    modes = []

    def evaluate(model):
        modes.append((model.training, model.blocks[0].training, torch.is_grad_enabled()))
        return 7

    assert evaluated(model, evaluate) == 7.0
    assert modes == [(False, False, False)]
    assert model.training and not model.blocks[0].training


@pytest.mark.parametrize(("every", "due"), [(None, [7]), (3, [3, 6, 7]), (7, [7]), (10, [7])])
def test_evaluates_when_due_and_at_the_end(every, due):
    records = run(gpt(), windows(), 7, evaluate=lambda model: 1.5, evaluate_every=every)
    assert [r.step for r in records if r.eval is not None] == due


def test_evaluation_does_not_change_training():
    plain, watched = gpt(dropout=0.2), gpt(dropout=0.2)
    torch.manual_seed(1)
    run(plain, windows(), 6)
    torch.manual_seed(1)
    inputs = windows()[99][0]
    run(watched, windows(), 6, evaluate=lambda m: m(inputs).mean(), evaluate_every=2)
    assert torch.equal(flat(plain), flat(watched))


# Clipping


def clipped(gradients, limit, divide_by=1.0):
    parameters = [nn.Parameter(torch.zeros_like(g)) for g in gradients]
    for p, g in zip(parameters, gradients, strict=True):
        p.grad = g.clone()
    norm = clip_gradients(parameters, limit, divide_by)
    return norm, [p.grad for p in parameters]


def test_clips_by_one_norm_over_all_tensors():
    gradients = [torch.tensor([3.0, 0.0]), torch.tensor([[4.0]])]
    norm, scaled = clipped(gradients, 1.0)
    assert norm == 5
    torch.testing.assert_close(scaled, [g / 5 for g in gradients])
    # The wrong version, tensor by tensor, turns the update: (3, 4) would become (1, 1).
    assert scaled[0][0] != scaled[1][0]


def test_small_gradients_are_not_scaled_up():
    norm, scaled = clipped([torch.tensor([0.3, 0.4])], 1.0)
    assert norm == pytest.approx(0.5)
    torch.testing.assert_close(scaled[0], torch.tensor([0.3, 0.4]))


def test_divides_before_it_clips():
    norm, scaled = clipped([torch.tensor([30.0, 40.0])], 1.0, divide_by=10)
    assert norm == pytest.approx(5)
    torch.testing.assert_close(scaled[0], torch.tensor([0.6, 0.8]))


def test_no_gradient_at_all():
    with pytest.raises(ValueError, match="no parameter has a gradient"):
        clip_gradients([nn.Parameter(torch.ones(2))], 1.0)


# Precision


def test_autocast_is_entered_for_the_forward_pass():
    kinds = []

    def loss_fn(model, batch):
        kinds.append(torch.is_autocast_enabled("cpu"))
        return next_token_loss(model, batch)

    context = partial(torch.autocast, "cpu", torch.bfloat16)
    model = gpt().float()
    [record] = run(model, windows(), 1, loss_fn=loss_fn, autocast=context)
    [exact] = run(gpt().float(), windows(), 1)
    assert kinds == [True]
    assert record.loss != exact.loss and record.loss == pytest.approx(exact.loss, rel=0.02)
    assert all(p.dtype == torch.float32 for p in model.parameters())


def test_loss_scaling_gives_the_same_update_and_skips_overflow():
    scaled, plain = gpt().float(), gpt().float()
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    run(scaled, windows(), 3, scaler=scaler)
    run(plain, windows(), 3)
    torch.testing.assert_close(flat(scaled), flat(plain), atol=1e-5, rtol=0)

    def overflowing(model, batch):
        loss, count = next_token_loss(model, batch)
        model.tokens.weight.register_hook(lambda g: g * math.inf)
        return loss, count

    before, model = flat(gpt().float()), gpt().float()
    run(model, windows(), 1, scaler=scaler, loss_fn=overflowing)
    assert torch.equal(flat(model), before)
    assert scaler.get_scale() == 512


# Errors


def not_a_number_at(step, value):
    calls = []

    def loss_fn(model, batch):
        calls.append(1)
        loss, count = next_token_loss(model, batch)
        return (loss * value if len(calls) == step + 1 else loss), count

    return loss_fn


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_names_the_step_and_leaves_the_weights(value):
    model, reference = gpt(), gpt()
    run(reference, windows(), 3)
    with pytest.raises(ValueError, match=r"the loss is (nan|inf) at step 3; .*learning rate"):
        run(model, windows(), 9, loss_fn=not_a_number_at(3, value))
    assert torch.equal(flat(model), flat(reference))


def test_a_gradient_that_is_not_finite_names_the_step_and_leaves_the_weights():
    model = gpt()
    before = flat(model)
    model.tokens.weight.register_hook(lambda g: g * math.nan)
    with pytest.raises(ValueError, match="the gradient norm is nan at step 0"):
        run(model, windows(), 2)
    assert torch.equal(flat(model), before)


def test_every_target_ignored():
    with pytest.raises(ValueError, match="no token counts at step 0"):
        run(gpt(), ragged([[0, 0]]), 1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "steps is 0"),
        ({"steps": -4}, "steps is -4"),
        ({"accumulate": 0}, "accumulate is 0"),
        ({"start": 4}, "start is 4; give 0 to 3"),
        ({"start": -1}, "start is -1"),
        ({"clip": 0.0}, "clip is 0.0"),
        ({"clip": math.nan}, "clip is nan"),
        ({"evaluate_every": 0, "evaluate": lambda m: 0.0}, "evaluate_every is 0"),
        ({"evaluate_every": 5}, "evaluate_every is 5"),
        ({"batches": [0, 1]}, "2 batches are too few for 3 updates"),
    ],
)
def test_bad_arguments_are_refused_at_the_call(options, message):
    model = gpt()
    arguments = {"batches": windows(), "steps": 3} | options
    with pytest.raises(ValueError, match=message):
        train(model, optimizer=AdamW(model.parameters()), **arguments)  # not even iterated


def test_ids_outside_the_vocabulary():
    with pytest.raises(ValueError, match="13"):
        run(gpt(), TokenWindows(torch.arange(14), 8, 1), 1)


@pytest.mark.parametrize("multiplier", [math.nan, math.inf, -1.0])
def test_a_schedule_that_makes_no_sense_leaves_the_weights_alone(multiplier):
    model = gpt()
    before = [p.detach().clone() for p in model.parameters()]
    with pytest.raises(ValueError, match="at step 0"):
        run(model, windows(), 2, schedule=lambda step: multiplier)
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


def test_a_named_tuple_stays_one():
    from collections import namedtuple

    Batch = namedtuple("Batch", "inputs targets")
    plain, named = gpt(), gpt()
    data = [windows()[i] for i in range(3)]
    for model, batches in ((plain, data), (named, [Batch(*pair) for pair in data])):
        kept = []

        def loss_fn(model, batch, kept=kept):
            kept.append(type(batch))
            return next_token_loss(model, (batch[0], batch[1]))

        list(train(model, batches, optimizer=AdamW(model.parameters()), steps=3, loss_fn=loss_fn))
    assert kept == [Batch] * 3
    pairs = zip(plain.parameters(), named.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
