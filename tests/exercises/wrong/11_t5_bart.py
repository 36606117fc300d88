"""Wrong answers to exercises/11_t5_bart: each is a mistake people make, and each must fail."""

import math

import torch
import torch.nn.functional as F

from minillm.nn import t5_buckets

# ------------------------------------------------------------------------------------ q1: lengths


def _q1(source_length=196, target_length=77, bart_target=241):
    return {
        "source_length": source_length, "target_length": target_length, "bart_target": bart_target
    }  # fmt: skip


def q1_no_end():
    return _q1(195, 76, 240)


def q1_no_sentinels_in_the_source():
    return _q1(source_length=181)


def q1_a_sentinel_a_token():
    return _q1(source_length=241)


def q1_no_last_sentinel():
    return _q1(target_length=76)


def q1_no_sentinels_in_the_target():
    return _q1(target_length=61)


def q1_nothing_closes_the_target():
    return _q1(target_length=75)


def q1_bart_writes_spans():
    return _q1(bart_target=77)


def q1_bart_without_end():
    return _q1(bart_target=240)


def q1_one_span():
    return _q1(source_length=182)


# ------------------------------------------------------------------------------------ q2: corrupt


def _corrupt(tokens, taken, sentinels, *, close=True, merge=True, first=True, same=False):
    source, target, used, before = [], [], 0, not first
    for token, goes in zip(tokens, taken, strict=True):
        if goes and not (before and merge):
            mark = sentinels[0 if same else used]
            source.append(mark)
            target.append(mark)
            used += 1
        (target if goes else source).append(token)
        before = goes
    return source, [*target, *([sentinels[used]] if close else [])]


def q2_a_sentinel_a_token(tokens, taken, sentinels):
    return _corrupt(tokens, taken, sentinels, merge=False)


def q2_no_last_sentinel(tokens, taken, sentinels):
    return _corrupt(tokens, taken, sentinels, close=False)


def q2_span_at_the_beginning_lost(tokens, taken, sentinels):
    return _corrupt(tokens, taken, sentinels, first=False)


def q2_one_sentinel_for_all(tokens, taken, sentinels):
    source, target = _corrupt(tokens, taken, sentinels, same=True)
    return source, [*target[:-1], sentinels[1]]


def q2_no_sentinels_in_the_source(tokens, taken, sentinels):
    kept = [t for t, goes in zip(tokens, taken, strict=True) if not goes]
    return kept, _corrupt(tokens, taken, sentinels)[1]


def q2_spans_without_sentinels(tokens, taken, sentinels):
    source, _ = _corrupt(tokens, taken, sentinels)
    used = sum(t in sentinels for t in source)
    return source, [t for t, goes in zip(tokens, taken, strict=True) if goes] + [sentinels[used]]


def q2_whole_text_as_target(tokens, taken, sentinels):
    return _corrupt(tokens, taken, sentinels)[0], list(tokens)


def q2_source_and_target_exchanged(tokens, taken, sentinels):
    return _corrupt(tokens, taken, sentinels)[::-1]


def q2_uses_up_the_sentinels(tokens, taken, sentinels):
    out = _corrupt(tokens, taken, sentinels)
    sentinels.clear()
    return out


def q2_by_value(tokens, taken, sentinels):
    """Removes tokens by what they are, not by where they stand."""
    gone = {t for t, goes in zip(tokens, taken, strict=True) if goes}
    return _corrupt(tokens, [t in gone for t in tokens], sentinels)


def q2_counts_up_from_the_first(tokens, taken, sentinels):
    """Takes it that sentinels rise by one; T5's own run down."""
    return _corrupt(tokens, taken, [sentinels[0] + i for i in range(len(sentinels))])


def q2_counts_down_from_the_first(tokens, taken, sentinels):
    return _corrupt(tokens, taken, [sentinels[0] - i for i in range(len(sentinels))])


def q2_sorts_the_sentinels(tokens, taken, sentinels):
    return _corrupt(tokens, taken, sorted(sentinels))


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


# ------------------------------------------------------------------------------ q4: T5's attention


def _attention(q, k, v, table, causal, *, sign=1, both=None, scale=1.0, shift=0, heads=False):
    places = torch.arange(q.shape[1])
    distance = sign * (places[None, :] - places[:, None])
    both = (not causal) if both is None else both
    bucket = t5_buckets(distance, bidirectional=both, n_buckets=len(table), max_distance=128)
    bias = table[bucket].permute(2, 0, 1)
    bias = bias.flip(0) if heads else bias
    scores = q @ k.mT * scale + bias
    if causal:
        allowed = torch.ones(len(places), len(places)).tril(shift).bool()
        scores = scores.masked_fill(~allowed, -math.inf)
    return scores.softmax(-1) @ v


def q4_as_it_was(q, k, v, table, causal):
    return _attention(q, k, v, table, causal, sign=-1, both=True, scale=q.shape[-1] ** -0.5)


def q4_only_the_scale(q, k, v, table, causal):
    return _attention(q, k, v, table, causal, sign=-1, both=True)


def q4_scale_left(q, k, v, table, causal):
    return _attention(q, k, v, table, causal, scale=q.shape[-1] ** -0.5)


def q4_sign_left(q, k, v, table, causal):
    return _attention(q, k, v, table, causal, sign=-1)


def q4_two_sided_decoder(q, k, v, table, causal):
    return _attention(q, k, v, table, causal, both=True)


def q4_one_sided_encoder(q, k, v, table, causal):
    return _attention(q, k, v, table, causal, both=False)


def q4_two_sided_only_with_causal(q, k, v, table, causal):
    return _attention(q, k, v, table, causal, both=causal, sign=-1)


def q4_both_turned(q, k, v, table, causal):
    return _attention(q, k, v, table, causal, both=causal)


def q4_sees_the_next(q, k, v, table, causal):
    return _attention(q, k, v, table, causal, shift=1)


def q4_scale_over_bias_too(q, k, v, table, causal):
    return _attention(q, k, v, table * q.shape[-1] ** 0.5, causal, scale=1.0)


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
