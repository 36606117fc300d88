"""Wrong answers to exercises/10_gpt: each is a mistake people make, and each must fail."""

import math

import torch
import torch.nn.functional as F

from minillm.generation import ContiguousCache, generate

# -------------------------------------------------------------------------- q1: three numbers

_D = 320
_NATS, _BITS = math.log(5000), 2.9 / math.log(2) / 4.15
_RIGHT = 5000 * _D + 256 * _D + 10 * (12 * _D**2 + 13 * _D) + 2 * _D


def _q1(n_parameters=_RIGHT, first_loss=_NATS, bits_per_byte=_BITS):
    return {
        "n_parameters": n_parameters,
        "first_loss": first_loss,
        "bits_per_byte": bits_per_byte,
    }


def q1_output_layer_twice():
    return _q1(n_parameters=_RIGHT + 5000 * _D)


def q1_no_tables():
    return _q1(n_parameters=_RIGHT - 5256 * _D)


def q1_no_positions():
    return _q1(n_parameters=_RIGHT - 256 * _D)


def q1_no_final_norm():
    return _q1(n_parameters=_RIGHT - 2 * _D)


def q1_no_biases():
    return _q1(n_parameters=_RIGHT - 10 * 9 * _D)


def q1_twelve_d_squared():
    return _q1(n_parameters=_RIGHT - 10 * 13 * _D - 2 * _D)


def q1_no_block_norms():
    return _q1(n_parameters=_RIGHT - 10 * 4 * _D)


def q1_three_matrices_in_attention():
    return _q1(n_parameters=_RIGHT - 10 * _D**2)


def q1_norms_without_shift():
    return _q1(n_parameters=_RIGHT - 10 * 2 * _D - _D)


def q1_loss_in_bits():
    return _q1(first_loss=math.log2(5000))


def q1_loss_negative():
    return _q1(first_loss=-math.log(5000))


def q1_loss_half():
    return _q1(first_loss=math.log(2500))


def q1_nats_per_byte():
    return _q1(bits_per_byte=2.9 / 4.15)


def q1_times_ln_2():
    return _q1(bits_per_byte=2.9 * math.log(2) / 4.15)


def q1_bits_per_token():
    return _q1(bits_per_byte=2.9 / math.log(2))


def q1_times_bytes():
    return _q1(bits_per_byte=2.9 / math.log(2) * 4.15)


def q1_loss_is_a_probability():
    return _q1(first_loss=1 / 5000)


def q1_loss_of_a_smaller_vocabulary():
    return _q1(first_loss=math.log(4200))


def q1_loss_cut_instead_of_rounded():
    return _q1(first_loss=8.51)


def q1_off_by_something_odd():
    return _q1(n_parameters=_RIGHT - 12_160)


def q1_bits_with_log_10():
    return _q1(bits_per_byte=2.9 / math.log(10) / 4.15)


# ---------------------------------------------------------------------- q2: next-token loss


def _terms(logits, tokens, dim=-1):
    return -logits.log_softmax(dim=dim).gather(-1, tokens[..., None])[..., 0]


def q2_no_shift(logits, tokens, real):
    return _terms(logits, tokens)[real].mean()


def q2_no_shift_but_the_mask(logits, tokens, real):
    return _terms(logits[:, :-1], tokens[:, :-1])[real[:, 1:]].mean()


def q2_shifted_backwards(logits, tokens, real):
    return _terms(logits[:, 1:], tokens[:, :-1])[real[:, 1:]].mean()


def q2_shifted_twice(logits, tokens, real):
    return _terms(logits[:, :-2], tokens[:, 2:])[real[:, 2:]].mean()


def q2_rolled_around(logits, tokens, real):
    return _terms(logits, tokens.roll(-1, 1))[real].mean()


def q2_counts_padding(logits, tokens, real):
    return _terms(logits[:, :-1], tokens[:, 1:]).mean()


def q2_asks_whether_the_reader_is_real(logits, tokens, real):
    return _terms(logits[:, :-1], tokens[:, 1:])[real[:, :-1]].mean()


def q2_mean_of_means(logits, tokens, real):
    losses, kept = _terms(logits[:, :-1], tokens[:, 1:]), real[:, 1:]
    return ((losses * kept).sum(1) / kept.sum(1)).mean()


def q2_divides_by_all_places(logits, tokens, real):
    return (_terms(logits[:, :-1], tokens[:, 1:]) * real[:, 1:]).mean()


def q2_divides_by_tokens(logits, tokens, real):
    return (_terms(logits[:, :-1], tokens[:, 1:]) * real[:, 1:]).sum() / real.sum()


def q2_bits(logits, tokens, real):
    return _terms(logits[:, :-1], tokens[:, 1:])[real[:, 1:]].mean() / math.log(2)


def q2_sum(logits, tokens, real):
    return _terms(logits[:, :-1], tokens[:, 1:])[real[:, 1:]].sum()


def q2_sign(logits, tokens, real):
    return -_terms(logits[:, :-1], tokens[:, 1:])[real[:, 1:]].mean()


def q2_probability_without_logarithm(logits, tokens, real):
    p = logits[:, :-1].softmax(-1).gather(-1, tokens[:, 1:, None])[..., 0]
    return (1 - p)[real[:, 1:]].mean()


def q2_logarithm_of_softmax(logits, tokens, real):
    p = logits[:, :-1].softmax(-1).gather(-1, tokens[:, 1:, None])[..., 0]
    return -p.log()[real[:, 1:]].mean()


def q2_logarithm_of_softmax_plus_something(logits, tokens, real):
    p = logits[:, :-1].softmax(-1).gather(-1, tokens[:, 1:, None])[..., 0]
    return -(p + 1e-9).log()[real[:, 1:]].mean()


def q2_softmax_over_positions(logits, tokens, real):
    return _terms(logits[:, :-1], tokens[:, 1:], dim=1)[real[:, 1:]].mean()


def q2_detached(logits, tokens, real):
    return _terms(logits[:, :-1].detach(), tokens[:, 1:])[real[:, 1:]].mean()


def q2_item(logits, tokens, real):
    return _terms(logits[:, :-1], tokens[:, 1:])[real[:, 1:]].mean().item()


def q2_returns_nothing(logits, tokens, real):
    _terms(logits[:, :-1], tokens[:, 1:])[real[:, 1:]].mean()


def q2_no_softmax(logits, tokens, real):
    return -logits[:, :-1].gather(-1, tokens[:, 1:, None])[..., 0][real[:, 1:]].mean()


def q2_changes_the_tokens(logits, tokens, real):
    targets = tokens[:, 1:]
    targets[~real[:, 1:]] = -100
    return F.cross_entropy(logits[:, :-1].flatten(0, 1), targets.flatten())


# ----------------------------------------------------------------------- q3: score the answers


def _sums(
    model, context, choices, *, begin=-1, end=-1, only_first=False, mean=False, log=True, shift=0
):
    """log p of each choice, with a mistake."""
    found = []
    with torch.no_grad():
        for choice in choices:
            n = len(context)
            ids = torch.tensor([[*context, *choice]])
            logits = model(ids)[0]
            rows = logits.log_softmax(-1) if log else logits
            rows = rows[n + begin + shift :][: len(choice)]
            terms = rows.gather(-1, torch.tensor(choice[: len(rows)])[:, None])
            terms = terms[:1] if only_first else terms
            found.append(terms.mean() if mean else terms.sum())
    return torch.stack(found)


def _pick(score, sign=-1, best=lambda x: int(x.argmax())):
    def calibrated(model, context, neutral, choices):
        return best(score(model, context, choices) + sign * score(model, neutral, choices))

    return calibrated


def _q3(score=_sums, calibrated=None):
    return {"score": score, "calibrated": calibrated or _pick(score)}


def q3_reads_the_logits_one_place_late():
    return _q3(lambda m, c, choices: _sums(m, c, choices, shift=1))


def q3_first_token_only():
    return _q3(lambda m, c, choices: _sums(m, c, choices, only_first=True))


def q3_forgets_the_first_token():
    def score(model, context, choices):
        first = torch.stack([_sums(model, context, [c[:1]])[0] for c in choices])
        return _sums(model, context, choices) - first

    return _q3(score)


def q3_mean_instead_of_sum():
    return _q3(lambda m, c, choices: _sums(m, c, choices, mean=True))


def q3_raw_logits():
    return _q3(lambda m, c, choices: _sums(m, c, choices, log=False))


def q3_probabilities():
    return _q3(lambda m, c, choices: _sums(m, c, choices).exp())


def q3_bits():
    return _q3(lambda m, c, choices: _sums(m, c, choices) / math.log(2))


def q3_losses():
    return _q3(lambda m, c, choices: -_sums(m, c, choices))


def q3_scores_the_context_too():
    def score(model, context, choices):
        before = sum(_sums(model, context[:i], [[t]])[0] for i, t in enumerate(context) if i)
        return _sums(model, context, choices) + before

    return _q3(score)


def q3_without_the_context():
    return _q3(lambda m, c, choices: _sums(m, c[-1:], choices))


def q3_softmax_over_positions():
    def score(model, context, choices):
        def pairs(rows):
            return zip(rows, choices, strict=True)

        with torch.no_grad():
            rows = [model(torch.tensor([[*context, *c]]))[0].log_softmax(0) for c in choices]
        n = len(context) - 1
        return torch.stack([sum(r[n + i, t] for i, t in enumerate(c)) for r, c in pairs(rows)])

    return _q3(score)


def q3_pads_and_counts_the_padding():
    def score(model, context, choices):
        longest = max(map(len, choices))
        return _sums(model, context, [c + [0] * (longest - len(c)) for c in choices])

    return _q3(score)


def q3_records_gradients():
    def score(model, context, choices):
        n, sums = len(context) - 1, []
        for c in choices:
            log_p = model(torch.tensor([[*context, *c]]))[0].log_softmax(-1)
            sums.append(sum(log_p[n + i, t] for i, t in enumerate(c)))
        return torch.stack(sums)

    return _q3(score)


def q3_a_list_of_floats():
    return _q3(lambda m, c, choices: _sums(m, c, choices).tolist(), _pick(_sums))


def q3_one_row_too_many():
    return _q3(lambda m, c, choices: _sums(m, c, choices)[None], _pick(_sums))


def q3_adds_the_neutral_score():
    return _q3(calibrated=_pick(_sums, sign=1))


def q3_forgets_the_neutral_score():
    return _q3(calibrated=_pick(_sums, sign=0))


def q3_takes_the_contexts_the_wrong_way_round():
    return _q3(calibrated=lambda m, c, n, choices: _pick(_sums)(m, n, c, choices))


def q3_smallest_difference():
    return _q3(calibrated=_pick(_sums, best=lambda x: int(x.argmin())))


def q3_place_as_a_tensor():
    return _q3(calibrated=_pick(_sums, best=lambda x: x.argmax()))


def q3_differences_of_probabilities():
    def calibrated(model, context, neutral, choices):
        a, b = (_sums(model, text, choices).exp() for text in (context, neutral))
        return int((a - b).argmin())

    return _q3(calibrated=calibrated)


def q3_largest_difference_of_probabilities():
    def calibrated(model, context, neutral, choices):
        a, b = (_sums(model, text, choices).exp() for text in (context, neutral))
        return int((a - b).argmax())

    return _q3(calibrated=calibrated)


def q3_smallest_ratio_of_scores():
    def calibrated(model, context, neutral, choices):
        a, b = (_sums(model, text, choices) for text in (context, neutral))
        return int((a / b).argmin())

    return _q3(calibrated=calibrated)


def q3_largest_ratio_of_scores():
    def calibrated(model, context, neutral, choices):
        a, b = (_sums(model, text, choices) for text in (context, neutral))
        return int((a / b).argmax())

    return _q3(calibrated=calibrated)


def q3_half_the_correction():
    return _q3(calibrated=_pick(_sums, sign=-0.5))


def q3_correction_by_the_mean():
    return _q3(calibrated=_pick(lambda m, c, choices: _sums(m, c, choices, mean=True)))


def q3_typed_in():
    return _q3(calibrated=lambda model, context, neutral, choices: 1 if context == [1] else 0)


# --------------------------------------------------------------- q4: every second letter


def q4_bug_left_in(model, windows):
    logits, targets = model(windows[:, :-1]), windows[:, 1:]
    return F.cross_entropy(logits[:, :-1].flatten(0, 1), targets[:, 1:].flatten())


def q4_no_shift_at_all(model, windows):
    logits = model(windows[:, :-1])
    return F.cross_entropy(logits.flatten(0, 1), windows[:, :-1].flatten())


def q4_second_shift_undoes_the_first(model, windows):
    logits, targets = model(windows[:, :-1]), windows[:, 1:]
    return F.cross_entropy(logits[:, 1:].flatten(0, 1), targets[:, :-1].flatten())


def q4_shifted_backwards(model, windows):
    logits = model(windows[:, 1:])
    return F.cross_entropy(logits.flatten(0, 1), windows[:, :-1].flatten())


def q4_drops_the_last_prediction(model, windows):
    logits, targets = model(windows[:, :-1]), windows[:, 1:]
    return F.cross_entropy(logits[:, :-1].flatten(0, 1), targets[:, :-1].flatten())


def q4_shifts_the_inputs_only(model, windows):
    inputs = windows[:, :-1]
    return F.cross_entropy(model(inputs)[:, :-1].flatten(0, 1), inputs[:, 1:].flatten())


def q4_drops_the_first_prediction(model, windows):
    logits, targets = model(windows[:, :-1]), windows[:, 1:]
    return F.cross_entropy(logits[:, 1:].flatten(0, 1), targets[:, 1:].flatten())


def q4_reads_one_token_too_many(model, windows):
    logits = model(windows)
    n = min(logits.shape[1], windows.shape[1] - 1)
    return F.cross_entropy(logits[:, :n].flatten(0, 1), windows[:, 1 : n + 1].flatten())


def q4_reads_the_whole_window(model, windows):
    return F.cross_entropy(model(windows).flatten(0, 1), windows[:, 1:].flatten())


def q4_sum(model, windows):
    logits, targets = model(windows[:, :-1]), windows[:, 1:]
    return F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="sum")


def q4_detached(model, windows):
    logits, targets = model(windows[:, :-1]).detach(), windows[:, 1:]
    return F.cross_entropy(logits.flatten(0, 1), targets.flatten())


# ---------------------------------------------------------------------- q5: residual scale


def _scale(model, factor, parts=("attention.output", "ffn.down"), blocks=slice(None), bias=False):
    with torch.no_grad():
        for block in model.blocks[blocks]:
            for part in parts:
                layer = block.get_submodule(part)
                layer.weight.div_(factor)
                if bias:
                    layer.bias.div_(factor)


def _root(model):
    return math.sqrt(2 * len(model.blocks))


def _grow(model, tokens, before=False, causal=True, positions=True, chained=True):
    with torch.no_grad():
        x = model.tokens(tokens)
        if positions:
            x = x + model.positions(torch.arange(tokens.shape[1])[None])
        start = first = x
        for block in model.blocks:
            x = block(x if chained else first, causal=causal)
    return x, start


def _q5(
    scale=lambda model: _scale(model, _root(model)),
    grow=lambda model, tokens: (lambda x, start: (x.std() / start.std()).item())(
        *_grow(model, tokens)
    ),
    growth_before=6.6188,
    growth_after=1.2006,
):
    return {
        "scale_residual_": scale,
        "stream_growth": grow,
        "growth_before": growth_before,
        "growth_after": growth_after,
    }


def q5_scaled_by_sqrt_of_layers():
    return _q5(scale=lambda model: _scale(model, math.sqrt(len(model.blocks))))


def q5_scaled_without_root():
    return _q5(scale=lambda model: _scale(model, 2 * len(model.blocks)))


def q5_scaled_up():
    return _q5(scale=lambda model: _scale(model, 1 / _root(model)))


def q5_attention_only():
    return _q5(scale=lambda model: _scale(model, _root(model), ["attention.output"]))


def q5_feed_forward_only():
    return _q5(scale=lambda model: _scale(model, _root(model), ["ffn.down"]))


def q5_up_instead_of_down():
    return _q5(scale=lambda model: _scale(model, _root(model), ["attention.output", "ffn.up"]))


def q5_all_layers():
    parts = [f"attention.{name}" for name in ("query", "key", "value", "output")]
    return _q5(scale=lambda model: _scale(model, _root(model), [*parts, "ffn.up", "ffn.down"]))


def q5_biases_too():
    return _q5(scale=lambda model: _scale(model, _root(model), bias=True))


def q5_first_block_only():
    return _q5(scale=lambda model: _scale(model, _root(model), blocks=slice(1)))


def q5_not_in_place():
    return _q5(scale=lambda model: [b.ffn.down.weight / _root(model) for b in model.blocks])


def q5_growth_upside_down():
    def grow(model, tokens):
        x, start = _grow(model, tokens)
        return (start.std() / x.std()).item()

    return _q5(grow=grow)


def q5_growth_of_variance():
    def grow(model, tokens):
        x, start = _grow(model, tokens)
        return (x.var() / start.var()).item()

    return _q5(grow=grow)


def q5_growth_not_relative():
    return _q5(grow=lambda model, tokens: _grow(model, tokens)[0].std().item())


def q5_growth_after_the_final_norm():
    def grow(model, tokens):
        x, start = _grow(model, tokens)
        return (model.final_norm(x).std() / start.std()).item()

    return _q5(grow=grow)


def q5_growth_without_positions():
    def grow(model, tokens):
        x, start = _grow(model, tokens, positions=False)
        return (x.std() / start.std()).item()

    return _q5(grow=grow)


def q5_growth_not_causal():
    def grow(model, tokens):
        x, start = _grow(model, tokens, causal=False)
        return (x.std() / start.std()).item()

    return _q5(grow=grow)


def q5_growth_of_the_last_block_alone():
    def grow(model, tokens):
        x, start = _grow(model, tokens, chained=False)
        return (x.std() / start.std()).item()

    return _q5(grow=grow)


def q5_measured_the_same_twice():
    return _q5(growth_after=6.6188)


def q5_measured_the_wrong_way_round():
    return _q5(growth_before=1.2006, growth_after=6.6188)


def q5_measured_variances():
    return _q5(growth_before=43.81, growth_after=1.4414)


def q5_measured_on_other_tokens():
    return _q5(growth_before=7.89, growth_after=1.51)


def q5_typed_in_roughly():
    return _q5(growth_before=6.3, growth_after=1.2)


def q5_without_no_grad():
    def scale(model):
        for block in model.blocks:
            block.attention.output.weight.div_(_root(model))
            block.ffn.down.weight.div_(_root(model))

    return _q5(scale=scale)


def q5_measured_after_scaling_twice():
    return _q5(growth_after=1.0024)


# ----------------------------------------------------------------------- q6: cached greedy


def _write(model, tokens, n, first=lambda tokens: tokens, last=-1, feed=None, restart=False):
    cache = ContiguousCache.for_model(model, batch=tokens.shape[0])
    start, new = tokens.shape[1], first(tokens)
    with torch.no_grad():
        for _ in range(n):
            if restart:
                cache.rollback(0)
            new = model(new, cache=cache)[:, last].argmax(-1, keepdim=True)
            tokens = torch.cat([tokens, new], dim=1)
            new = new if feed is None else feed(tokens, start)
    return tokens


def q6_reads_everything_again(model, tokens, n):
    with torch.no_grad():
        for _ in range(n):
            new = model(tokens)[:, -1].argmax(-1, keepdim=True)
            tokens = torch.cat([tokens, new], dim=1)
    return tokens


def q6_empties_the_cache_each_time(model, tokens, n):
    return _write(model, tokens, n, restart=True)


def q6_feeds_the_whole_text_to_the_cache(model, tokens, n):
    return _write(model, tokens, n, feed=lambda tokens, start: tokens)


def q6_feeds_all_new_tokens(model, tokens, n):
    return _write(model, tokens, n, feed=lambda tokens, start: tokens[:, start:])


def q6_empties_the_cache_and_reads_everything(model, tokens, n):
    return _write(model, tokens, n, restart=True, feed=lambda tokens, start: tokens)


def q6_reads_the_last_prompt_token_only(model, tokens, n):
    return _write(model, tokens, n, first=lambda tokens: tokens[:, -1:])


def q6_logits_of_the_first_position(model, tokens, n):
    return _write(model, tokens, n, last=0)


def q6_only_the_new_tokens(model, tokens, n):
    return _write(model, tokens, n)[:, tokens.shape[1] :]


def q6_one_token_too_many(model, tokens, n):
    return _write(model, tokens, n + 1)


def q6_one_token_missing(model, tokens, n):
    return _write(model, tokens, n - 1)


def q6_same_token_for_all_rows(model, tokens, n):
    return torch.cat(
        [tokens, _write(model, tokens, n)[:1, tokens.shape[1] :].expand(len(tokens), -1)], 1
    )


def q6_prompt_token_by_token(model, tokens, n):
    cache = ContiguousCache.for_model(model, batch=tokens.shape[0])
    out, start = tokens, tokens.shape[1]
    with torch.no_grad():
        for i in range(start + n - 1):
            new = model(out[:, i : i + 1], cache=cache)[:, -1].argmax(-1, keepdim=True)
            out = torch.cat([out, new], dim=1) if i >= start - 1 else out
    return out


def q6_records_gradients(model, tokens, n):
    new = tokens
    cache = _Growing(model.config.n_layers)
    for _ in range(n):
        new = model(new, cache=cache)[:, -1].argmax(-1, keepdim=True)
        tokens = torch.cat([tokens, new], dim=1)
    return tokens


class _Growing(list):
    """A cache that gradients flow through."""

    def __init__(self, n_layers):
        super().__init__(_GrowingLayer() for _ in range(n_layers))

    @property
    def length(self):
        return 0 if self[-1].k is None else self[-1].k.shape[2]


class _GrowingLayer:
    k = v = None

    def append(self, k, v):
        self.k = k if self.k is None else torch.cat([self.k, k], 2)
        self.v = v if self.v is None else torch.cat([self.v, v], 2)
        return self.k, self.v


def q6_samples(model, tokens, n):
    torch.manual_seed(0)
    return torch.cat([tokens, torch.randint(29, (len(tokens), n))], dim=1)


def q6_calls_the_library(model, tokens, n):
    return generate(model, tokens, max_new_tokens=n) if n else tokens


def q6_calls_the_library_for_any_n(model, tokens, n):
    return generate(model, tokens, max_new_tokens=n)


def q6_one_token_for_none(model, tokens, n):
    return _write(model, tokens, max(n, 1))
