"""Wrong answers to exercises/11_t5_bart: each is a mistake people make, and each must fail."""

import math

import torch
import torch.nn.functional as F

from minillm.data.denoising import restore
from minillm.nn import t5_buckets

# ------------------------------------------------------------------------------------ q1: lengths


def _q1(longest_text=307, target_length=98, bart_target=308):
    return {
        "longest_text": longest_text, "target_length": target_length, "bart_target": bart_target
    }  # fmt: skip


def q1_no_end():
    return _q1(308, 97, 308)


def q1_text_as_long_as_the_source():
    return _q1(longest_text=250)


def q1_no_sentinels_in_the_source():
    return _q1(longest_text=332)


def q1_not_the_longest():
    return _q1(longest_text=306)


def q1_too_long():
    return _q1(longest_text=310)


def q1_no_last_sentinel():
    return _q1(target_length=97)


def q1_no_sentinels_in_the_target():
    return _q1(target_length=78)


def q1_nothing_closes_the_target():
    return _q1(target_length=96)


def q1_bart_writes_spans():
    return _q1(bart_target=98)


def q1_bart_without_end():
    return _q1(bart_target=307)


# --------------------------------------------------------------------------------------- q2: fill


def _parts(written, sentinels, *, twice="first"):
    answers, current = {}, []
    for token in written:
        if token in sentinels:
            if twice == "last" or token not in answers:
                answers[token] = current = []
            elif twice == "added":
                current = answers[token]
            else:
                current = []
        else:
            current.append(token)
    return answers


def _put(source, answers, sentinels, *, missing=False):
    text = []
    for token in source:
        kept = [token] if missing or token not in sentinels else []
        text += answers.get(token, kept)
    return text


def q2_library_restore(source, written, sentinels):
    """Leaves a sentinel without an answer in the text, and adds second answers to first ones."""
    given = (torch.tensor(part, dtype=torch.long) for part in (source, written))
    return restore(*given, sentinels).tolist()


def q2_sentinels_stay(source, written, sentinels):
    return _put(source, _parts(written, sentinels), sentinels, missing=True)


def q2_last_answer_counts(source, written, sentinels):
    return _put(source, _parts(written, sentinels, twice="last"), sentinels)


def q2_answers_added(source, written, sentinels):
    return _put(source, _parts(written, sentinels, twice="added"), sentinels)


def q2_by_order(source, written, sentinels):
    """The first answer into the first hole, whatever its sentinel."""
    answers = iter(_parts(written, sentinels).values())
    text = []
    for token in source:
        text += next(answers, []) if token in sentinels else [token]
    return text


def q2_unknown_sentinels_are_text(source, written, sentinels):
    answers, current = {}, []
    for token in written:
        if token in sentinels and token in source:
            current = []
            answers.setdefault(token, current)
        elif token not in sentinels:
            current.append(token)
    return _put(source, answers, sentinels)


def q2_start_goes_into_the_first_hole(source, written, sentinels):
    holes = [token for token in source if token in sentinels]
    return _put(source, _parts([*holes[:1], *written], sentinels, twice="added"), sentinels)


def q2_first_answer_that_is_not_empty(source, written, sentinels):
    answers, current = {}, []
    for token in written:
        if token in sentinels:
            current = [] if answers.get(token) else answers.setdefault(token, [])
        else:
            current.append(token)
    return _put(source, answers, sentinels)


def q2_sentinels_taken_as_a_range(source, written, sentinels):
    marks = list(range(min(sentinels), max(sentinels) + 1))
    return _put(source, _parts(written, marks), marks)


def q2_sentinels_rise_by_one(source, written, sentinels):
    marks = [sentinels[0] + i for i in range(len(sentinels))]
    return _put(source, _parts(written, marks), marks)


def q2_stops_at_the_first_unknown(source, written, sentinels):
    cut = next((i for i, t in enumerate(written) if t in sentinels and t not in source), None)
    return _put(source, _parts(written[:cut], sentinels), sentinels)


def q2_uses_up_what_was_written(source, written, sentinels):
    out = _put(source, _parts(written, sentinels), sentinels)
    written.clear()
    return out


def q2_drops_zeros(source, written, sentinels):
    return [token for token in _put(source, _parts(written, sentinels), sentinels) if token]


def q2_source_only(source, written, sentinels):
    return [token for token in source if token not in sentinels]


# ------------------------------------------------------------------------------------- q3: infill


def q3_empty_spans_dropped(tokens, spans, mask_id):
    damaged, copied = [], 0
    for start, length in spans:
        damaged += list(tokens[copied:start]) + ([mask_id] if length else [])
        copied = start + length
    return damaged + list(tokens[copied:])


def q3_a_mask_a_token(tokens, spans, mask_id):
    damaged, copied = [], 0
    for start, length in spans:
        damaged += list(tokens[copied:start]) + [mask_id] * max(length, 1)
        copied = start + length
    return damaged + list(tokens[copied:])


def q3_end_forgotten(tokens, spans, mask_id):
    damaged, copied = [], 0
    for start, length in spans:
        damaged += [*tokens[copied:start], mask_id]
        copied = start + length
    return damaged


def q3_touching_spans_merged(tokens, spans, mask_id):
    damaged, copied = [], 0
    for start, length in spans:
        damaged += list(tokens[copied:start])
        if not damaged or damaged[-1] != mask_id:
            damaged.append(mask_id)
        copied = start + length
    return damaged + list(tokens[copied:])


def q3_mask_behind(tokens, spans, mask_id):
    damaged, copied = [], 0
    for start, length in spans:
        after = start + (length == 0)
        damaged += [*tokens[copied:after], mask_id]
        copied = after + length
    return damaged + list(tokens[copied:])


def q3_length_is_the_end(tokens, spans, mask_id):
    damaged, copied = [], 0
    for start, end in spans:
        damaged += [*tokens[copied:start], mask_id]
        copied = max(start, end)
    return damaged + list(tokens[copied:])


def q3_places_shift(tokens, spans, mask_id):
    """Changes the text in place of a copy from the left: later places are no longer right."""
    damaged = list(tokens)
    for start, length in spans:
        damaged[start : start + length] = [mask_id]
    return damaged


def q3_changes_its_input(tokens, spans, mask_id):
    for start, length in reversed(spans):
        tokens[start : start + length] = [mask_id]
    return tokens


def _infill(tokens, spans, mask_id):
    damaged, copied = [], 0
    for start, length in spans:
        damaged += [*tokens[copied:start], mask_id]
        copied = start + length
    return damaged + list(tokens[copied:])


def q3_one_span_a_start(tokens, spans, mask_id):
    """A dictionary from start to length holds only the last of two spans with one start."""
    return _infill(tokens, dict(spans).items(), mask_id)


def q3_uses_up_the_spans(tokens, spans, mask_id):
    damaged = _infill(tokens, spans, mask_id)
    spans.clear()
    return damaged


# ----------------------------------------------------------------------- q4: attention with a cache


def _newest(q, k, v, table, *, sign=1, both=False, scale=1.0, start=None, shift=0, mask=True):
    m, n = q.shape[1], k.shape[1]
    first = n - m if start is None else start
    ahead = torch.arange(n)[None, :] - torch.arange(first, first + m)[:, None]
    options = {"bidirectional": both, "n_buckets": len(table), "max_distance": 128}
    bias = table[t5_buckets(sign * ahead, **options)].permute(2, 0, 1)
    scores = q @ k.mT * scale + bias
    if mask:
        scores = scores.masked_fill(ahead > shift, -math.inf)
    return scores.softmax(-1) @ v


def q4_as_it_was(q, k, v, table):
    return _newest(q, k, v, table, both=True, scale=q.shape[-1] ** -0.5, start=0)


def q4_only_the_scale(q, k, v, table):
    return _newest(q, k, v, table, both=True, start=0)


def q4_scale_left(q, k, v, table):
    return _newest(q, k, v, table, scale=q.shape[-1] ** -0.5)


def q4_places_left(q, k, v, table):
    return _newest(q, k, v, table, start=0)


def q4_two_sided_left(q, k, v, table):
    return _newest(q, k, v, table, both=True)


def q4_one_place_too_early(q, k, v, table):
    return _newest(q, k, v, table, start=k.shape[1] - q.shape[1] - 1, shift=1)


def q4_one_place_too_late(q, k, v, table):
    return _newest(q, k, v, table, start=k.shape[1] - q.shape[1] + 1)


def q4_all_queries_at_the_end(q, k, v, table):
    """Right for one new token; with more, all stand at the place of the last."""
    n = k.shape[1]
    last = [_newest(q[:, i : i + 1], k, v, table, start=n - 1) for i in range(q.shape[1])]
    return torch.cat(last, dim=1)


def q4_mask_gone(q, k, v, table):
    return _newest(q, k, v, table, mask=False)


def q4_sign_turned_too(q, k, v, table):
    return _newest(q, k, v, table, sign=-1)


def q4_table_scaled(q, k, v, table):
    return _newest(q, k, v, table * q.shape[-1] ** 0.5)


# --------------------------------------------------------------------------------- q5: words only


def _words(targets, special):
    return ~torch.isin(targets, torch.tensor([-100, *special], dtype=targets.dtype))


def _each(logits, targets):
    return F.cross_entropy(logits.mT, targets, reduction="none", ignore_index=-100)


def _checked(word):
    if not word.any():
        raise ValueError("no word")
    return word


def q5_sentinels_counted(logits, targets, special):
    word = _checked(targets != -100)
    return _each(logits, targets)[word].mean()


def q5_padding_in_the_denominator(logits, targets, special):
    word = _checked(_words(targets, special))
    return _each(logits, targets)[word].sum() / targets.numel()


def q5_special_in_the_denominator(logits, targets, special):
    word = _checked(_words(targets, special))
    return _each(logits, targets)[word].sum() / (targets != -100).sum()


def q5_sum(logits, targets, special):
    return _each(logits, targets)[_checked(_words(targets, special))].sum()


def q5_mean_of_means(logits, targets, special):
    word, each = _checked(_words(targets, special)), _each(logits, targets)
    return torch.stack([e[w].mean() for e, w in zip(each, word, strict=True) if w.any()]).mean()


def q5_log_of_softmax(logits, targets, special):
    word = _checked(_words(targets, special))
    p = logits[word].exp() / logits[word].exp().sum(-1, keepdim=True)
    return -p.gather(-1, targets[word][:, None]).log().mean()


def q5_nan_without_words(logits, targets, special):
    return _each(logits, targets)[_words(targets, special)].mean()


def q5_wrong_sign(logits, targets, special):
    return -_each(logits, targets)[_checked(_words(targets, special))].mean()


def q5_bits(logits, targets, special):
    return _each(logits, targets)[_checked(_words(targets, special))].mean() / math.log(2)


def q5_id_zero_is_padding(logits, targets, special):
    word = _checked(_words(targets, special) & (targets != 0))
    return _each(logits, targets)[word].mean()


def q5_log_of_stable_softmax(logits, targets, special):
    """Does not overflow, but a word far below the best has p = 0."""
    word = _checked(_words(targets, special))
    log_p = logits[word].softmax(-1).log()
    return -log_p.gather(-1, targets[word][:, None]).mean()


def q5_log_of_softmax_and_a_little(logits, targets, special):
    word = _checked(_words(targets, special))
    log_p = (logits[word].softmax(-1) + 1e-12).log()
    return -log_p.gather(-1, targets[word][:, None]).mean()


def q5_clamped(logits, targets, special):
    word = _checked(_words(targets, special))
    return _each(logits.clamp(-50, 50), targets)[word].mean()


def q5_plain_number(logits, targets, special):
    return _each(logits, targets)[_checked(_words(targets, special))].mean().item()


def q5_cut_off(logits, targets, special):
    return _each(logits.detach(), targets)[_checked(_words(targets, special))].mean()


def q5_half_precision(logits, targets, special):
    word = _checked(_words(targets, special))
    return _each(logits.bfloat16(), targets)[word].mean().double()
