"""Wrong answers to exercises/14_moe: each is a mistake people make, and each must fail."""

import torch

# --------------------------------------------------------------------------- q1: count a mixture


def _total(attention=1, matrices=3, router=16, norms=2, last=256, tables=2, experts=16):
    block = attention * 4 * 256**2 + experts * matrices * 256 * 128 + router * 256 + norms * 256
    return 4 * block + last + tables * 1000 * 256


_IDLE = 4 * 14 * 3 * 256 * 128


def _q1(total=None, used=None):
    total = _total() if total is None else total
    return {"total": total, "used": _total() - _IDLE if used is None else used}


def q1_no_router():
    return _q1(_total(router=0))


def q1_two_matrices():
    return _q1(_total(matrices=2))


def q1_one_table():
    return _q1(_total(tables=1))


def q1_no_last_norm():
    return _q1(_total(last=0))


def q1_no_norms():
    return _q1(_total(norms=0))


def q1_attention_for_each_expert():
    return _q1(_total(attention=16))


def q1_total_is_what_is_used():
    return _q1(_total() - _IDLE)


def q1_one_block():
    return _q1(_total() // 4)


def q1_all_used():
    return _q1(used=_total())


def q1_an_eighth_used():
    return _q1(used=_total() // 8)


def q1_router_in_part():
    return _q1(used=_total() - _IDLE - 4 * 14 * 256)


def q1_one_expert_used():
    return _q1(used=_total() - 4 * 15 * 3 * 256 * 128)


def q1_idle_in_one_block():
    return _q1(used=_total() - 14 * 3 * 256 * 128)


def q1_two_idle():
    return _q1(used=_total() - 4 * 2 * 3 * 256 * 128)


def q1_tables_not_used():
    return _q1(used=_total() - _IDLE - 512000)


# ----------------------------------------------------------------------------- q2: a top-k gate


def _mask(logits, k):
    return torch.zeros_like(logits).scatter(-1, logits.topk(k).indices, 1.0)


def q2_all_experts(logits, k):
    return logits.softmax(-1)


def q2_not_renormalized(logits, k):
    return logits.softmax(-1) * _mask(logits, k)


def q2_masked_with_zero(logits, k):
    return (logits * _mask(logits, k)).softmax(-1)


def q2_equal_weights(logits, k):
    return _mask(logits, k) / k


def q2_smallest(logits, k):
    values, places = (-logits).topk(k)
    return torch.zeros_like(logits).scatter(-1, places, (-values).softmax(-1))


def q2_one_more(logits, k):
    values, places = logits.topk(min(k + 1, logits.shape[1]))
    return torch.zeros_like(logits).scatter(-1, places, values.softmax(-1))


def q2_over_tokens(logits, k):
    values, places = logits.topk(k)
    return torch.zeros_like(logits).scatter(-1, places, values.softmax(0))


def q2_detached(logits, k):
    values, places = logits.detach().topk(k)
    return torch.zeros_like(logits).scatter(-1, places, values.softmax(-1))


def q2_compact(logits, k):
    return logits.topk(k).values.softmax(-1)


def q2_in_place(logits, k):
    low = logits.topk(k).values[:, -1:]
    with torch.no_grad():
        logits[logits < low] = -torch.inf
    return logits.softmax(-1)


def q2_overflows(logits, k):
    weights = logits.exp() * _mask(logits, k)
    return weights / (weights.sum(-1, keepdim=True) + 1.0)


def q2_returns_nothing(logits, k):
    q2_not_renormalized(logits, k)


def q2_experts_choose(logits, k):
    """Must hear that each token chooses among its experts."""
    k = min(k, len(logits))
    values, places = logits.topk(k, dim=0)
    return torch.zeros_like(logits).scatter(0, places, values.softmax(0))


def q2_zeros_of_another_type(logits, k):
    """Must hear of torch.zeros_like(logits)."""
    values, places = logits.topk(k)
    return torch.zeros(logits.shape).scatter(-1, places, values.softmax(-1))


# ---------------------------------------------------------------------- q3: the balancing loss


def _shares(logits, k):
    return _mask(logits.detach(), k).sum(0) / (k * len(logits))


def q3_padding_counts(logits, k, keep):
    return logits.shape[1] * (_shares(logits, k) * logits.softmax(-1).mean(0)).sum()


def q3_padding_in_f(logits, k, keep):
    return logits.shape[1] * (_shares(logits, k) * logits[keep].softmax(-1).mean(0)).sum()


def q3_padding_in_p(logits, k, keep):
    return logits.shape[1] * (_shares(logits[keep], k) * logits.softmax(-1).mean(0)).sum()


def q3_divided_by_all(logits, k, keep):
    p = logits[keep].softmax(-1).sum(0) / len(logits)
    return logits.shape[1] * (_shares(logits[keep], k) * p).sum()


def q3_choices_per_token(logits, k, keep):
    return k * _right_q3(logits, k, keep)


def q3_without_e(logits, k, keep):
    return _right_q3(logits, k, keep) / logits.shape[1]


def q3_shares_twice(logits, k, keep):
    f = _shares(logits[keep], k)
    return logits.shape[1] * (f * f).sum()


def q3_probabilities_twice(logits, k, keep):
    p = logits[keep].softmax(-1).mean(0)
    return logits.shape[1] * (p * p).sum()


def q3_detached(logits, k, keep):
    return _right_q3(logits.detach(), k, keep)


def q3_number(logits, k, keep):
    return _right_q3(logits, k, keep).item()


def q3_gradient_through_soft_shares(logits, k, keep):
    kept = logits[keep]
    p = kept.softmax(-1)
    hard = _mask(kept, k)
    soft = hard + p - p.detach()
    return kept.shape[1] * (soft.mean(0) / k * p.mean(0)).sum()


def q3_without_minlength(logits, k, keep):
    kept = logits[keep]
    counts = torch.bincount(kept.topk(k).indices.flatten())
    return kept.shape[1] * (counts / counts.sum() * kept.softmax(-1).mean(0)).sum()


def q3_zeroed_padding(logits, k, keep):
    return q3_padding_counts(logits * keep[:, None], k, keep)


def q3_inverted_mask(logits, k, keep):
    return _right_q3(logits, k, ~keep)


def q3_first_choice_only(logits, k, keep):
    kept = logits[keep]
    return kept.shape[1] * (_shares(kept, 1) * kept.softmax(-1).mean(0)).sum()


def _right_q3(logits, k, keep):
    kept = logits[keep]
    return kept.shape[1] * (_shares(kept, k) * kept.softmax(-1).mean(0)).sum()


def q3_counts_of_those_that_are_there(logits, k, keep):
    """Must hear that all E counts must be there."""
    kept = logits[keep]
    counts = kept.topk(k).indices.unique(return_counts=True)[1]
    return kept.shape[1] * (counts / counts.sum() * kept.softmax(-1).mean(0)).sum()


def q3_experts_in_use(logits, k, keep):
    """Must hear that those that nobody chose count, too."""
    used = int((_shares(logits[keep], k) > 0).sum())
    return _right_q3(logits, k, keep) / logits.shape[1] * used


def q3_times_k(logits, k, keep):
    """Must hear that it is E, not by k."""
    return k * _right_q3(logits, k, keep) / logits.shape[1]


def q3_sigmoids(logits, k, keep):
    """Must hear that it is not sigmoids."""
    kept = logits[keep]
    return kept.shape[1] * (_shares(kept, k) * kept.sigmoid().mean(0)).sum()


def q3_softmax_of_the_chosen(logits, k, keep):
    """Must hear that it is not of the chosen ones."""
    kept = logits[keep]
    p = kept.masked_fill(_mask(kept, k) == 0, -torch.inf).softmax(-1)
    return kept.shape[1] * (_shares(kept, k) * p.mean(0)).sum()


# ------------------------------------------------------------------------------- q4: the bug


def _loop(x, weights, experts, write):
    y = torch.zeros_like(x)
    for i, expert in enumerate(experts):
        rows = weights[:, i].nonzero().flatten()
        if len(rows):
            y = write(y, rows, weights[rows, i, None], expert, x)
    return y


def q4_as_it_was(x, weights, experts):
    def write(y, rows, w, expert, x):
        y = y.clone()
        y[rows] = w * expert(x[rows])
        return y

    return _loop(x, weights, experts, write)


def q4_keeps_the_first(x, weights, experts):
    def write(y, rows, w, expert, x):
        free = (y[rows] == 0).all(-1, keepdim=True)
        return y.index_add(0, rows, free * w * expert(x[rows]))

    return _loop(x, weights, experts, write)


def q4_unweighted(x, weights, experts):
    return _loop(x, weights, experts, lambda y, r, w, e, x: y.index_add(0, r, e(x[r])))


def q4_half_each(x, weights, experts):
    return _loop(x, weights, experts, lambda y, r, w, e, x: y.index_add(0, r, e(x[r]) / 2))


def q4_weight_inside(x, weights, experts):
    return _loop(x, weights, experts, lambda y, r, w, e, x: y.index_add(0, r, e(w * x[r])))


def q4_all_tokens_for_all(x, weights, experts):
    return sum(weights[:, i, None] * expert(x) for i, expert in enumerate(experts))


def q4_calls_the_idle(x, weights, experts):
    y = torch.zeros_like(x)
    for i, expert in enumerate(experts):
        rows = weights[:, i].nonzero().flatten()
        y = y.index_add(0, rows, weights[rows, i, None] * expert(x[rows]))
    return y


def q4_stops_at_the_idle(x, weights, experts):
    y = torch.zeros_like(x)
    for i, expert in enumerate(experts):
        rows = weights[:, i].nonzero().flatten()
        if not len(rows):
            break
        y = y.index_add(0, rows, weights[rows, i, None] * expert(x[rows]))
    return y


def q4_forgets_the_lonely(x, weights, experts):
    y = torch.zeros_like(x)
    for i, expert in enumerate(experts):
        rows = weights[:, i].nonzero().flatten()
        if len(rows) > 1:
            y = y.index_add(0, rows, weights[rows, i, None] * expert(x[rows]))
    return y


def q4_forgets_the_light(x, weights, experts):
    heavy = weights * (weights > 0.1)
    return _loop(x, heavy, experts, lambda y, r, w, e, x: y.index_add(0, r, w * e(x[r])))


def q4_residual(x, weights, experts):
    return x + _loop(x, weights, experts, lambda y, r, w, e, x: y.index_add(0, r, w * e(x[r])))


def q4_renormalizes(x, weights, experts):
    y = _loop(x, weights, experts, lambda y, r, w, e, x: y.index_add(0, r, w * e(x[r])))
    return y / weights.sum(-1, keepdim=True)


def q4_changes_x(x, weights, experts):
    y = _loop(x, weights, experts, lambda y, r, w, e, x: y.index_add(0, r, w * e(x[r])))
    with torch.no_grad():
        x.mul_(1.5)
    return y


def q4_detached(x, weights, experts):
    return _loop(x, weights, experts, lambda y, r, w, e, x: y.index_add(0, r, w.detach() * e(x[r])))


def q4_no_gradient(x, weights, experts):
    """Must hear of no detach, no no_grad, no .data."""
    with torch.no_grad():
        return _loop(x, weights, experts, lambda y, r, w, e, x: y.index_add(0, r, w * e(x[r])))


# --------------------------------------------------------------------------------- q5: the bias


def _route(choice, value, k):
    places = choice.topk(k).indices
    chosen = value.gather(-1, places)
    return torch.zeros_like(value).scatter(-1, places, chosen / chosen.sum(-1, keepdim=True))


def _move(choice, bias, k, rate):
    counts = _mask(choice, k).sum(0)
    return bias + rate * (counts.mean() - counts).sign()


def q5_bias_in_the_weights(scores, bias, k, rate):
    return _route(scores + bias, scores + bias, k), _move(scores + bias, bias, k, rate)


def q5_bias_unused(scores, bias, k, rate):
    return _route(scores, scores, k), _move(scores, bias, k, rate)


def q5_roles_swapped(scores, bias, k, rate):
    return _route(scores, scores + bias, k), _move(scores, bias, k, rate)


def q5_bias_subtracted(scores, bias, k, rate):
    return _route(scores - bias, scores, k), _move(scores - bias, bias, k, rate)


def q5_not_divided(scores, bias, k, rate):
    return scores * _mask(scores + bias, k), _move(scores + bias, bias, k, rate)


def q5_softmax(scores, bias, k, rate):
    kept = _mask(scores + bias, k) > 0
    weights = scores.masked_fill(~kept, -torch.inf).softmax(-1)
    return weights, _move(scores + bias, bias, k, rate)


def q5_counts_without_the_bias(scores, bias, k, rate):
    return _route(scores + bias, scores, k), _move(scores, bias, k, rate)


def q5_whole_mean(scores, bias, k, rate):
    counts = _mask(scores + bias, k).sum(0)
    step = (counts.sum() // len(bias) - counts).sign()
    return _route(scores + bias, scores, k), bias + rate * step


def q5_counts_first_choices(scores, bias, k, rate):
    return _route(scores + bias, scores, k), _move(scores + bias, bias, 1, rate)


def q5_divided_by_all(scores, bias, k, rate):
    weights = scores * _mask(scores + bias, k) / scores.sum(-1, keepdim=True)
    return weights, _move(scores + bias, bias, k, rate)


def q5_wrong_way(scores, bias, k, rate):
    return _route(scores + bias, scores, k), _move(scores + bias, bias, k, -rate)


def q5_by_size(scores, bias, k, rate):
    counts = _mask(scores + bias, k).sum(0)
    return _route(scores + bias, scores, k), bias + rate * (counts.mean() - counts)


def q5_forgets_the_old_bias(scores, bias, k, rate):
    new = _move(scores + bias, torch.zeros_like(bias), k, rate)
    return _route(scores + bias, scores, k), new


def q5_moves_the_average_expert(scores, bias, k, rate):
    counts = _mask(scores + bias, k).sum(0)
    step = torch.where(counts < counts.mean(), rate, -rate)
    return _route(scores + bias, scores, k), bias + step


def q5_in_place(scores, bias, k, rate):
    weights = _route(scores + bias, scores, k)
    bias += _move(scores + bias, bias, k, rate) - bias
    return weights, bias


def q5_weights_alone(scores, bias, k, rate):
    return _route(scores + bias, scores, k)


def _against(mean, scores, bias, k, rate):
    counts = _mask(scores + bias, k).sum(0)
    return _route(scores + bias, scores, k), bias + rate * (mean(counts) - counts).sign()


def q5_mean_rounded(scores, bias, k, rate):
    return _against(lambda c: c.mean().round(), scores, bias, k, rate)


def q5_mean_rounded_up(scores, bias, k, rate):
    return _against(lambda c: c.mean().ceil(), scores, bias, k, rate)


def q5_median(scores, bias, k, rate):
    return _against(torch.median, scores, bias, k, rate)


def q5_mean_without_k(scores, bias, k, rate):
    return _against(lambda c: c.mean() / k, scores, bias, k, rate)


def q5_raises_the_average_expert(scores, bias, k, rate):
    counts = _mask(scores + bias, k).sum(0)
    step = torch.where(counts <= counts.mean(), rate, -rate)
    return _route(scores + bias, scores, k), bias + step


def q5_sums_of_weights(scores, bias, k, rate):
    weights = _route(scores + bias, scores, k)
    return weights, bias + rate * (weights.sum(0).mean() - weights.sum(0)).sign()


# ------------------------------------------------------------------------------- q6: no keys


def _parts(q, q_rope, c, k_rope, w_k):
    return torch.einsum("hn,hnr->hr", q, w_k) @ c.T, q_rope @ k_rope.T


def _root(q, q_rope):
    return (q.shape[1] + q_rope.shape[1]) ** 0.5


def q6_makes_the_keys(q, q_rope, c, k_rope, w_k):
    keys = torch.stack([c @ w.T for w in w_k])
    scores = torch.einsum("hn,hsn->hs", q, keys) + q_rope @ k_rope.T
    return scores / _root(q, q_rope)


def q6_no_rotary(q, q_rope, c, k_rope, w_k):
    return _parts(q, q_rope, c, k_rope, w_k)[0] / _root(q, q_rope)


def q6_rotary_alone(q, q_rope, c, k_rope, w_k):
    return _parts(q, q_rope, c, k_rope, w_k)[1] / _root(q, q_rope)


def q6_no_scale(q, q_rope, c, k_rope, w_k):
    return sum(_parts(q, q_rope, c, k_rope, w_k))


def q6_scale_of_n(q, q_rope, c, k_rope, w_k):
    return sum(_parts(q, q_rope, c, k_rope, w_k)) / q.shape[1] ** 0.5


def q6_scale_of_the_latent(q, q_rope, c, k_rope, w_k):
    return sum(_parts(q, q_rope, c, k_rope, w_k)) / c.shape[1] ** 0.5


def q6_scale_of_what_is_multiplied(q, q_rope, c, k_rope, w_k):
    return sum(_parts(q, q_rope, c, k_rope, w_k)) / (c.shape[1] + q_rope.shape[1]) ** 0.5


def q6_two_scales(q, q_rope, c, k_rope, w_k):
    plain, rotary = _parts(q, q_rope, c, k_rope, w_k)
    return plain / q.shape[1] ** 0.5 + rotary / q_rope.shape[1] ** 0.5


def q6_rotary_not_scaled(q, q_rope, c, k_rope, w_k):
    plain, rotary = _parts(q, q_rope, c, k_rope, w_k)
    return plain / _root(q, q_rope) + rotary


def q6_softmax(q, q_rope, c, k_rope, w_k):
    return (sum(_parts(q, q_rope, c, k_rope, w_k)) / _root(q, q_rope)).softmax(-1)


def q6_transposed(q, q_rope, c, k_rope, w_k):
    return (sum(_parts(q, q_rope, c, k_rope, w_k)) / _root(q, q_rope)).T


def _key_by_key(q, q_rope, c, k_rope, key):
    rows = [torch.stack([q[i] @ key(i, j) for j in range(len(c))]) for i in range(len(q))]
    return (torch.stack(rows) + q_rope @ k_rope.T) / _root(q, q_rope)


def q6_one_key_at_a_time(q, q_rope, c, k_rope, w_k):
    """Must hear of small pieces: the FLOP counter leaves products with a vector out."""
    return _key_by_key(q, q_rope, c, k_rope, lambda i, j: w_k[i] @ c[j])


def q6_one_key_at_a_time_by_hand(q, q_rope, c, k_rope, w_k):
    """Must hear of small pieces."""
    return _key_by_key(q, q_rope, c, k_rope, lambda i, j: (w_k[i] * c[j]).sum(-1))
