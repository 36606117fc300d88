"""Wrong answers to exercises/08_encoder_decoder: each is a mistake people make, each must fail."""

import math
from collections import Counter

import torch

# --------------------------------------------------------------------------------- q1: predict


def _q1(decoder_inputs=(1, 7, 5, 9, 2, 0), cross_shape=(3, 8, 6, 11), key_rows=11):
    return {"decoder_inputs": list(decoder_inputs), "cross_shape": cross_shape,
            "key_rows": key_rows}  # fmt: skip


def q1_not_shifted():
    return _q1(decoder_inputs=(7, 5, 9, 2, 0, 0))


def q1_no_start():
    return _q1(decoder_inputs=(0, 7, 5, 9, 2, 0))


def q1_reads_ignored_marks():
    return _q1(decoder_inputs=(1, 7, 5, 9, 2, -100))


def q1_drops_the_end():
    return _q1(decoder_inputs=(1, 7, 5, 9, 0, 0))


def q1_seven_tokens():
    return _q1(decoder_inputs=(1, 7, 5, 9, 2, 0, 0))


def q1_source_asks():
    return _q1(cross_shape=(3, 8, 11, 6))


def q1_self_attention():
    return _q1(cross_shape=(3, 8, 6, 6))


def q1_all_blocks():
    return _q1(cross_shape=(3, 48, 6, 11))


def q1_ids_with_a_point():
    return _q1(decoder_inputs=(1.0, 7.0, 5.0, 9.0, 2.0, 0.0))


def q1_lengths_with_a_point():
    return _q1(cross_shape=(3.0, 8.0, 6.0, 11.0))


def q1_keys_for_every_token():
    return _q1(key_rows=220)


def q1_keys_for_every_beam():
    return _q1(key_rows=44)


# --------------------------------------------------------------------------- q2: smoothed loss


def _picked(logits, targets):
    keep = targets != -100
    log_p = logits[keep].log_softmax(-1)
    return log_p, log_p.gather(1, targets[keep][:, None])[:, 0]


def q2_spreads_over_the_others(logits, targets, epsilon):
    log_p, right = _picked(logits, targets)
    others = (log_p.sum(-1) - right) / (log_p.shape[1] - 1)
    return -((1 - epsilon) * right + epsilon * others).mean()


def q2_not_shared_out(logits, targets, epsilon):
    log_p, right = _picked(logits, targets)
    return -((1 - epsilon) * right + epsilon * log_p.sum(-1)).mean()


def q2_sums_to_more_than_one(logits, targets, epsilon):
    log_p, right = _picked(logits, targets)
    return -(right + epsilon * log_p.mean(-1)).mean()


def q2_ignores_epsilon(logits, targets, epsilon):
    return -_picked(logits, targets)[1].mean()


def q2_divides_by_all(logits, targets, epsilon):
    log_p, right = _picked(logits, targets)
    return -((1 - epsilon) * right + epsilon * log_p.mean(-1)).sum() / len(targets)


def q2_padding_counts(logits, targets, epsilon):
    log_p = logits.log_softmax(-1)
    right = log_p.gather(1, targets.clamp(min=0)[:, None])[:, 0]
    return -((1 - epsilon) * right + epsilon * log_p.mean(-1)).mean()


def q2_picks_padding(logits, targets, epsilon):
    log_p = logits.log_softmax(-1)
    right = log_p.gather(1, targets[:, None])[:, 0]
    return -((1 - epsilon) * right + epsilon * log_p.mean(-1)).mean()


def q2_softmax_over_rows(logits, targets, epsilon):
    log_p = logits.log_softmax(0)
    right = log_p.gather(1, targets.clamp(min=0)[:, None])[:, 0]
    return -((1 - epsilon) * right + epsilon * log_p.mean(-1))[targets != -100].mean()


def q2_sign(logits, targets, epsilon):
    log_p, right = _picked(logits, targets)
    return ((1 - epsilon) * right + epsilon * log_p.mean(-1)).mean()


def q2_spread_part_detached(logits, targets, epsilon):
    log_p, right = _picked(logits, targets)
    return -((1 - epsilon) * right + epsilon * log_p.mean(-1).detach()).mean()


def q2_torchs_own(logits, targets, epsilon):
    return torch.nn.functional.cross_entropy(logits, targets, label_smoothing=epsilon)


def q2_torchs_own_module(logits, targets, epsilon):
    return torch.nn.CrossEntropyLoss(label_smoothing=epsilon)(logits, targets)


def q2_log_of_softmax(logits, targets, epsilon):
    keep = targets != -100
    log_p = logits[keep].softmax(-1).log()
    right = log_p.gather(1, targets[keep][:, None])[:, 0]
    return -((1 - epsilon) * right + epsilon * log_p.mean(-1)).mean()


def q2_kullback_leibler(logits, targets, epsilon):
    log_p, _ = _picked(logits, targets)
    q = torch.full_like(log_p, epsilon / log_p.shape[1])
    q[range(len(q)), targets[targets != -100]] += 1 - epsilon
    return (q * (q.clamp(min=1e-300).log() - log_p)).sum(-1).mean()


def q2_target_gets_no_share(logits, targets, epsilon):
    log_p, right = _picked(logits, targets)
    others = (log_p.sum(-1) - right) / log_p.shape[1]
    return -((1 - epsilon) * right + epsilon * others).mean()


def q2_epsilon_kept(logits, targets, epsilon):
    log_p, right = _picked(logits, targets)
    return -(epsilon * right + (1 - epsilon) * log_p.mean(-1)).mean()


def q2_leaves_out_token_0(logits, targets, epsilon):
    log_p, right = _picked(logits, targets.where(targets != 0, -100))
    return -((1 - epsilon) * right + epsilon * log_p.mean(-1)).mean()


def q2_half_precision(logits, targets, epsilon):
    log_p, right = _picked(logits.half(), targets)
    return -((1 - epsilon) * right + epsilon * log_p.mean(-1)).mean()


def q2_single_precision(logits, targets, epsilon):
    log_p, right = _picked(logits.float(), targets)
    return -((1 - epsilon) * right + epsilon * log_p.mean(-1)).mean()


def q2_number_without_gradient(logits, targets, epsilon):
    log_p, right = _picked(logits, targets)
    return -((1 - epsilon) * right + epsilon * log_p.mean(-1)).mean().item()


def q2_detached(logits, targets, epsilon):
    log_p, right = _picked(logits.detach(), targets)
    return -((1 - epsilon) * right + epsilon * log_p.mean(-1)).mean()


def q2_writes_into_targets(logits, targets, epsilon):
    keep = targets != -100
    targets[~keep] = 0
    log_p = logits.log_softmax(-1)
    right = log_p.gather(1, targets[:, None])[:, 0]
    return -((1 - epsilon) * right + epsilon * log_p.mean(-1))[keep].mean()


def q2_in_bits(logits, targets, epsilon):
    log_p, right = _picked(logits, targets)
    return -((1 - epsilon) * right + epsilon * log_p.mean(-1)).mean() / math.log(2)


# -------------------------------------------------------------------------------- q3: beam bug


def _beam(log_probs, width, length, end, *, add=True, drop=True, keep=True, take=None, key=None):
    beams, finished = [((), 0.0)], []
    for n in range(1, length + 1):
        grown = [
            ((*prefix, token), score + value if add else value)
            for prefix, score in beams
            for token, value in enumerate(log_probs(prefix))
        ]
        grown.sort(key=key or (lambda item: -item[1]))
        new = [i for i in grown[: take or width] if i[0][-1] == end or n == length]
        finished = finished + new if keep else new or finished
        beams = [i for i in grown if not drop or i[0][-1] != end][:width]
    finished.sort(key=lambda item: -item[1])
    return [sequence for sequence, _ in finished[:width]]


def q3_only_the_end_repaired(log_probs, width, length, end):
    return _beam(log_probs, width, length, end, add=False)


def q3_only_the_sum_repaired(log_probs, width, length, end):
    return _beam(log_probs, width, length, end, drop=False)


def q3_nothing_repaired(log_probs, width, length, end):
    return _beam(log_probs, width, length, end, add=False, drop=False)


def q3_forgets_earlier_ends(log_probs, width, length, end):
    return _beam(log_probs, width, length, end, keep=False)


def q3_keeps_the_worst(log_probs, width, length, end):
    return _beam(log_probs, width, length, end, key=lambda item: item[1])


def q3_greedy_whatever_the_width(log_probs, width, length, end):
    return _beam(log_probs, 1, length, end)


def q3_every_end_counts(log_probs, width, length, end):
    return _beam(log_probs, width, length, end, take=10**6)


def _choosing(log_probs, width, length, end, finish, go_on, stop=False, cut=True, kind=tuple):
    beams, finished = [((), 0.0)], []
    for n in range(1, length + 1):
        grown = [
            ((*prefix, token), score + value)
            for prefix, score in beams
            for token, value in enumerate(log_probs(prefix))
        ]
        grown.sort(key=lambda item: -item[1])
        finished += finish(grown, n)
        beams = go_on(grown, finished)
        if stop and len(finished) >= width:
            break
    finished.sort(key=lambda item: -item[1])
    return [kind(sequence) for sequence, _ in (finished[:width] if cut else finished)]


def _rules(width, length, end):
    return {
        "finish": lambda grown, n: [
            i for i in grown[:width] if i[0][-1] == end or n == length
        ],
        "go_on": lambda grown, finished: [i for i in grown if i[0][-1] != end][:width],
    }  # fmt: skip


def q3_cuts_before_it_drops_the_ended(log_probs, width, length, end):
    rules = _rules(width, length, end)
    rules["go_on"] = lambda grown, finished: [i for i in grown[:width] if i[0][-1] != end]
    return _choosing(log_probs, width, length, end, **rules)


def q3_beam_shrinks_with_every_end(log_probs, width, length, end):
    rules = _rules(width, length, end)
    rules["go_on"] = lambda grown, finished: [i for i in grown if i[0][-1] != end][
        : max(0, width - len(finished))
    ]
    return _choosing(log_probs, width, length, end, **rules)


def q3_stops_when_width_are_finished(log_probs, width, length, end):
    rules = _rules(width, length, end)
    return _choosing(log_probs, width, length, end, **rules, stop=True)


def q3_returns_all_finished(log_probs, width, length, end):
    rules = _rules(width, length, end)
    return _choosing(log_probs, width, length, end, **rules, cut=False)


def q3_lists_for_tuples(log_probs, width, length, end):
    rules = _rules(width, length, end)
    return _choosing(log_probs, width, length, end, **rules, kind=list)


def q3_twice_the_width_may_finish(log_probs, width, length, end):
    rules = _rules(width, length, end)
    rules["finish"] = lambda grown, n: [
        i for i in grown[: 2 * width] if i[0][-1] == end or n == length
    ]
    return _choosing(log_probs, width, length, end, **rules)


def q3_ended_ones_keep_a_place(log_probs, width, length, end):
    beams = [((), 0.0)]
    for _ in range(length):
        grown = [b for b in beams if b[0][-1:] == (end,)]
        for prefix, score in beams:
            if prefix[-1:] != (end,):
                grown += [((*prefix, i), score + v) for i, v in enumerate(log_probs(prefix))]
        beams = sorted(grown, key=lambda item: -item[1])[:width]
    return [sequence for sequence, _ in beams]


# ------------------------------------------------------------------------------------ q4: BLEU


def _counts(tokens, n):
    return Counter(tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1))


def _bleu(hyps, refs, *, clip=True, bp=None, orders=4, mean=None, scale=100.0):
    matches, totals, c, r = [0] * orders, [0] * orders, 0, 0
    for h, ref in zip(hyps, refs, strict=True):
        a, b = h.split(), ref.split()
        c, r = c + len(a), r + len(b)
        for n in range(1, orders + 1):
            mine, theirs = _counts(a, n), _counts(b, n)
            matches[n - 1] += sum(
                min(k, theirs[g]) if clip else k * (g in theirs) for g, k in mine.items()
            )
            totals[n - 1] += sum(mine.values())
    if min(matches) == 0:
        return 0.0
    penalty = bp(c, r) if bp else (1.0 if c >= r else math.exp(1 - r / c))
    p = [m / t for m, t in zip(matches, totals, strict=True)]
    average = mean(p) if mean else math.exp(sum(map(math.log, p)) / orders)
    return scale * penalty * average


def q4_no_clipping(hyps, refs):
    return _bleu(hyps, refs, clip=False)


def q4_no_brevity_penalty(hyps, refs):
    return _bleu(hyps, refs, bp=lambda c, r: 1.0)


def q4_penalty_for_long_ones(hyps, refs):
    return _bleu(hyps, refs, bp=lambda c, r: math.exp(min(0, 1 - c / r)))


def q4_penalty_upside_down(hyps, refs):
    return _bleu(hyps, refs, bp=lambda c, r: 1.0 if c >= r else math.exp(1 - c / r))


def q4_arithmetic_mean(hyps, refs):
    return _bleu(hyps, refs, mean=lambda p: sum(p) / 4)


def q4_mean_of_sentences(hyps, refs):
    return sum(_bleu([h], [r]) for h, r in zip(hyps, refs, strict=True)) / len(hyps)


def q4_three_orders(hyps, refs):
    return _bleu(hyps, refs, orders=3)


def q4_zero_to_one(hyps, refs):
    return _bleu(hyps, refs, scale=1.0)


def q4_crashes_without_matches(hyps, refs):
    matches, totals, c, r = [0] * 4, [0] * 4, 0, 0
    for h, ref in zip(hyps, refs, strict=True):
        a, b = h.split(), ref.split()
        c, r = c + len(a), r + len(b)
        for n in range(1, 5):
            matches[n - 1] += sum((_counts(a, n) & _counts(b, n)).values())
            totals[n - 1] += max(0, len(a) - n + 1)
    bp = 1.0 if c >= r else math.exp(1 - r / c)
    logs = [math.log(m / t) for m, t in zip(matches, totals, strict=True)]
    return 100 * bp * math.exp(sum(logs) / 4)


def q4_lower_case(hyps, refs):
    return _bleu([h.lower() for h in hyps], [r.lower() for r in refs])


def q4_drops_periods(hyps, refs):
    return _bleu([h.replace(".", "") for h in hyps], [r.replace(".", "") for r in refs])


def q4_pairs_once(hyps, refs):
    pairs = sorted(set(zip(hyps, refs, strict=True)))
    return _bleu([h for h, _ in pairs], [r for _, r in pairs])


def q4_library(hyps, refs):
    from minillm.evaluation.overlap import bleu

    return bleu(hyps, refs, tokenize="none", smoothing="none").score


def q4_sacrebleu(hyps, refs):
    import sacrebleu

    options = {"tokenize": "none", "smooth_method": "none", "force": True}
    return sacrebleu.corpus_bleu(hyps, [refs], **options).score


def q4_rounded(hyps, refs):
    return round(_bleu(hyps, refs), 2)


def q4_recall(hyps, refs):
    r, c = sum(len(x.split()) for x in refs), sum(len(x.split()) for x in hyps)
    return _bleu(refs, hyps, bp=lambda *_: 1.0 if c >= r else math.exp(1 - r / c))


def q4_penalty_for_each_sentence(hyps, refs):
    pairs = list(zip(hyps, refs, strict=True))
    short = sum(min(len(h.split()), len(r.split())) for h, r in pairs)
    return _bleu(hyps, refs, bp=lambda c, r: math.exp(1 - r / short) if short else 0.0)


def q4_empties_the_lists(hyps, refs):
    mine, theirs = hyps[:], refs[:]
    hyps.clear()
    return _bleu(mine, theirs)


def q4_one_long_text(hyps, refs):
    return _bleu([" ".join(hyps)], [" ".join(refs)])


# ---------------------------------------------------------------------------------- q5: greedy


def _write(model, source, mask, start_id, eos_id, n, *, first=None, second=None, place=-1,
           stop=True, cut=True, start=False, again=False, any_ends=False):  # fmt: skip
    first, second = (mask if m is None else None for m in (first, second))

    def remember():
        return model.remember(model.encode(source, source_mask=first), source_mask=second)

    with torch.no_grad():
        memory, tokens = remember(), torch.full((len(source), 1), start_id)
        ended = torch.zeros(len(source), dtype=torch.bool)
        for _ in range(n):
            memory = remember() if again else memory
            new = model.decode(tokens, memory)[:, place].argmax(-1)
            tokens = torch.cat([tokens, new[:, None]], dim=1)
            ended |= new == eos_id
            if stop and (ended.any() if any_ends else ended.all()):
                break
    rows = tokens.tolist() if start else tokens[:, 1:].tolist()
    if not cut:
        return rows
    return [row[: row.index(eos_id)] if eos_id in row else row for row in rows]


def q5_no_mask_at_all(*args):
    return _write(*args, first=False, second=False)


def q5_mask_in_the_encoder_only(*args):
    return _write(*args, second=False)


def q5_mask_in_the_decoder_only(*args):
    return _write(*args, first=False)


def q5_reads_the_first_position(*args):
    return _write(*args, place=0)


def q5_encodes_for_every_token(*args):
    return _write(*args, again=True)


def q5_never_stops(*args):
    return _write(*args, stop=False)


def q5_stops_with_the_first_row(*args):
    return _write(*args, any_ends=True)


def q5_keeps_the_end(*args):
    return _write(*args, cut=False)


def q5_keeps_the_start(*args):
    return _write(*args, start=True)


def q5_search_of_the_library(model, source, mask, start_id, eos_id, n):
    from minillm.generation.search import translate

    options = {"start_id": start_id, "eos_id": eos_id, "max_new_tokens": n}
    return translate(model, source, source_mask=mask, **options)


def q5_start_typed_in(model, source, mask, start_id, eos_id, n):
    return _write(model, source, mask, 1, eos_id, n)


def q5_writes_into_source(model, source, mask, start_id, eos_id, n):
    source[~mask] = 1
    return _write(model, source, mask, start_id, eos_id, n)


def q5_all_must_end_in_one_step(model, source, mask, start_id, eos_id, n):
    with torch.no_grad():
        memory = model.remember(model.encode(source, source_mask=mask), source_mask=mask)
        tokens = torch.full((len(source), 1), start_id)
        for _ in range(n):
            new = model.decode(tokens, memory)[:, -1].argmax(-1)
            tokens = torch.cat([tokens, new[:, None]], dim=1)
            if (new == eos_id).all():
                break
    rows = tokens[:, 1:].tolist()
    return [row[: row.index(eos_id)] if eos_id in row else row for row in rows]
