"""Wrong answers to exercises/01_language_models: mistakes people make, and each must fail."""

import math

import torch

# ----------------------------------------------------------------------------- q1: three numbers


def _q1(perplexity_4=2**2.5, perplexity_8=2**1.25, bits_per_byte=0.5):
    return {
        "perplexity_4": perplexity_4,
        "perplexity_8": perplexity_8,
        "bits_per_byte": bits_per_byte,
    }


def q1_probability_of_the_text():
    return _q1(perplexity_4=2**-10)


def q1_mean_of_the_inverses():
    return _q1(perplexity_4=7.5)


def q1_bits_per_token():
    return _q1(perplexity_4=2.5)


def q1_no_root():
    return _q1(perplexity_8=2**10)


def q1_e_to_the_bits():
    return _q1(perplexity_8=math.exp(1.25))


def q1_exchanged():
    return _q1(perplexity_4=2**1.25, perplexity_8=2**2.5)


def q1_the_same():
    return _q1(perplexity_8=2**2.5)


def q1_inverse():
    return _q1(perplexity_4=2**-2.5)


def q1_per_token():
    return _q1(bits_per_byte=2.5)


def q1_whole_text():
    return _q1(bits_per_byte=10)


def q1_bits_of_the_text_counted():
    return _q1(bits_per_byte=10 / 160)


def q1_nats_per_byte():
    return _q1(bits_per_byte=0.5 * math.log(2))


def q1_bytes_per_bit():
    return _q1(bits_per_byte=2.0)


# ------------------------------------------------------------------------------------ q2: add-k


def _counts(ids, context, v, first=0):
    counts, n = torch.zeros(v, dtype=torch.float64), len(context)
    for j in range(max(n, first), len(ids)):
        if tuple(ids[j - n : j]) == tuple(context):
            counts[ids[j]] += 1
    return counts


def q2_no_k(ids, context, v, k):
    counts = _counts(ids, context, v)
    return counts / counts.sum()


def q2_k_once_below(ids, context, v, k):
    counts = _counts(ids, context, v)
    return (counts + k) / (counts.sum() + k)


def q2_k_above_only(ids, context, v, k):
    counts = _counts(ids, context, v)
    return (counts + k) / counts.sum()


def q2_always_one(ids, context, v, k):
    return (_counts(ids, context, v) + 1) / (_counts(ids, context, v) + 1).sum()


def q2_vocabulary_of_the_text(ids, context, v, k):
    counts = _counts(ids, context, v) + k
    return counts / counts[: len(set(ids))].sum()


def q2_each_follower_once(ids, context, v, k):
    counts = (_counts(ids, context, v) > 0) + k
    return counts.double() / counts.sum()


def q2_float32(ids, context, v, k):
    counts = (_counts(ids, context, v) + k).float()
    return counts / counts.sum()


def q2_last_token_is_a_context(ids, context, v, k):
    counts, n = _counts(ids, context, v), len(context)
    places = sum(tuple(ids[j : j + n]) == tuple(context) for j in range(len(ids) - n + 1))
    return (counts + k) / (places + k * v)


def q2_zeros_for_the_unseen_context(ids, context, v, k):
    counts = _counts(ids, context, v)
    return (counts + k) / (counts.sum() + k * v) if counts.sum() else counts


def q2_first_token_forgotten(ids, context, v, k):
    counts = _counts(ids, context, v, first=1)
    return (counts + k) / (counts.sum() + k * v)


def q2_looks_at_one_token_only(ids, context, v, k):
    counts = _counts(ids, context[-1:], v)
    return (counts + k) / (counts.sum() + k * v)


def q2_float32_until_the_end(ids, context, v, k):
    counts = (_counts(ids, context, v) + k).float()
    return (counts / counts.sum()).double()


def q2_context_backwards(ids, context, v, k):
    counts = _counts(ids, context[::-1], v)
    return (counts + k) / (counts.sum() + k * v)


def q2_places_that_do_not_overlap(ids, context, v, k):
    counts, n = torch.zeros(v, dtype=torch.float64), len(context)
    j = n
    while j < len(ids):
        found = tuple(ids[j - n : j]) == tuple(context)
        counts[ids[j]] += found
        j += max(n, 1) if found else 1
    return (counts + k) / (counts.sum() + k * v)


def q2_sorts_the_text(ids, context, v, k):
    counts = _counts(ids, context, v)
    ids.sort()
    return (counts + k) / (counts.sum() + k * v)


# ---------------------------------------------------------------------------- q3: three discounts


def _q3(counts, shorter, table, weight=None):
    total = counts.sum()
    if total == 0:
        return shorter
    taken = torch.tensor(table, dtype=torch.float64)[counts.long().clamp(max=3)]
    weight = taken.sum() / total if weight is None else weight
    return (counts - taken) / total + weight * shorter


def q3_one_discount(counts, shorter, discounts):
    return _q3(counts, shorter, [0, *[discounts[0]] * 3])


def q3_nothing_given(counts, shorter, discounts):
    return _q3(counts, shorter, [0, *discounts], weight=0)


def q3_takes_from_zero(counts, shorter, discounts):
    return _q3(counts, shorter, [discounts[0], *discounts])


def q3_given_to_all_evenly(counts, shorter, discounts):
    if counts.sum() == 0:
        return shorter
    return _q3(counts, torch.full_like(shorter, 1 / len(shorter)), [0, *discounts])


def q3_largest_discount_for_the_weight(counts, shorter, discounts):
    total = counts.sum()
    weight = discounts[2] * (counts > 0).sum() / total if total else None
    return _q3(counts, shorter, [0, *discounts], weight=weight)


def q3_only_the_unseen_get_it(counts, shorter, discounts):
    p = _q3(counts, shorter, [0, *discounts], weight=0)
    total = counts.sum()
    if total == 0:
        return shorter
    taken = torch.tensor([0, *discounts], dtype=torch.float64)[counts.clamp(max=3)]
    return torch.where(counts > 0, p, shorter * taken.sum() / total)


def q3_divides_zero_by_zero(counts, shorter, discounts):
    taken = torch.tensor([0, *discounts], dtype=torch.float64)[counts.clamp(max=3)]
    return (counts - taken) / counts.sum() + taken.sum() / counts.sum() * shorter


def q3_uniform_when_unseen(counts, shorter, discounts):
    if counts.sum() == 0:
        return torch.full_like(shorter, 1 / len(shorter))
    return _q3(counts, shorter, [0, *discounts])


def q3_three_means_exactly_three(counts, shorter, discounts):
    total = counts.sum()
    if total == 0:
        return shorter
    taken = torch.zeros(len(counts), dtype=torch.float64)
    for c, d in zip((1, 2, 3), discounts, strict=True):
        taken[counts == c] = d
    return (counts - taken) / total + taken.sum() / total * shorter


def q3_float32(counts, shorter, discounts):
    total = counts.sum()
    if total == 0:
        return shorter
    taken = torch.tensor([0, *discounts])[counts.clamp(max=3)]
    return (counts - taken) / total + taken.sum() / total * shorter


def q3_changes_the_counts(counts, shorter, discounts):
    p = _q3(counts, shorter, [0, *discounts])
    counts.clamp_(max=3)
    return p


def q3_changes_the_shorter(counts, shorter, discounts):
    p = _q3(counts, shorter, [0, *discounts])
    shorter *= 0.5
    return p


def q3_keeps_a_quarter_at_least(counts, shorter, discounts):
    total = counts.sum()
    if total == 0:
        return shorter
    taken = torch.tensor([0, *discounts], dtype=torch.float64)[counts.clamp(max=3)]
    kept = (counts - taken).clamp(min=0.25) * (counts > 0)
    return kept / total + (1 - kept.sum() / total) * shorter


# ----------------------------------------------------------------------------------- q4: report


def _q4(total, tokens, size):
    return {"perplexity": math.exp(total / tokens), "bits_per_byte": total / math.log(2) / size}


def _sums(documents):
    return sum(x * n for x, n, _ in documents), sum(n for _, n, _ in documents)


def _bytes(documents):
    return sum(len(text.encode()) for _, _, text in documents)


def q4_bugs_left_in(documents):
    mean = sum(x for x, _, _ in documents) / len(documents)
    tokens, size = _sums(documents)[1], sum(len(text) for _, _, text in documents)
    return _q4(mean * tokens, tokens, size)


def q4_characters(documents):
    return _q4(*_sums(documents), sum(len(text) for _, _, text in documents))


def q4_mean_of_means(documents):
    mean, tokens = sum(x for x, _, _ in documents) / len(documents), _sums(documents)[1]
    return _q4(mean * tokens, tokens, _bytes(documents))


def q4_mean_of_perplexities(documents):
    mean = sum(math.exp(x) for x, _, _ in documents) / len(documents)
    return _q4(*_sums(documents), _bytes(documents)) | {"perplexity": mean}


def q4_weighted_mean_of_perplexities(documents):
    total, tokens = _sums(documents)
    mean = sum(math.exp(x) * n for x, n, _ in documents) / tokens
    return _q4(total, tokens, _bytes(documents)) | {"perplexity": mean}


def q4_weighted_by_bytes(documents):
    size = _bytes(documents)
    mean = sum(x * len(text.encode()) for x, _, text in documents) / size
    return _q4(*_sums(documents), size) | {"perplexity": math.exp(mean)}


def q4_nats_per_byte(documents):
    total, tokens = _sums(documents)
    size = _bytes(documents)
    return {"perplexity": math.exp(total / tokens), "bits_per_byte": total / size}


def q4_two_to_the_nats(documents):
    total, tokens = _sums(documents)
    return _q4(total, tokens, _bytes(documents)) | {"perplexity": 2 ** (total / tokens)}


def q4_two_bytes_a_character(documents):
    return _q4(*_sums(documents), sum(len(text.encode("utf-16-le")) for _, _, text in documents))


def q4_three_bytes_unless_ascii(documents):
    size = sum(len(text) if text.isascii() else 3 * len(text) for _, _, text in documents)
    return _q4(*_sums(documents), size)


def q4_one_document_for_each_text(documents):
    documents = list({text: (x, n, text) for x, n, text in documents}.values())
    return _q4(*_sums(documents), _bytes(documents))


def q4_empties_the_list(documents):
    found = _q4(*_sums(documents), _bytes(documents))
    documents.clear()
    return found


# ------------------------------------------------------------------------------ q5: soft targets


FLOOR = -(0.85 * math.log(0.85) + 3 * 0.05 * math.log(0.05))


def _q5(loss=None, gradient=None, floor=FLOOR):
    def loss_and_gradient(z, p):
        log_q = z.log_softmax(-1)
        right = -(p * log_q).sum(-1).mean(), (log_q.exp() - p) / len(z)
        return (
            right[0] if loss is None else loss(z, p),
            right[1] if gradient is None else gradient(z.softmax(-1), p),
        )

    return {"loss_and_gradient": loss_and_gradient, "floor": floor}


def q5_sign():
    return _q5(loss=lambda z, p: (p * z.log_softmax(-1)).sum(-1).mean())


def q5_sum_over_rows():
    return _q5(loss=lambda z, p: -(p * z.log_softmax(-1)).sum())


def q5_mean_over_everything():
    return _q5(loss=lambda z, p: -(p * z.log_softmax(-1)).mean())


def q5_kl():
    return _q5(loss=lambda z, p: (p * (p.log() - z.log_softmax(-1))).sum(-1).mean())


def q5_exchanged():
    return _q5(loss=lambda z, p: -(z.softmax(-1) * p.log()).sum(-1).mean())


def q5_bits():
    return _q5(loss=lambda z, p: -(p * z.log_softmax(-1)).sum(-1).mean() / math.log(2))


def q5_log_of_softmax():
    return _q5(loss=lambda z, p: -(p * z.softmax(-1).log()).sum(-1).mean())


def q5_tiny_number_in_the_logarithm():
    return _q5(loss=lambda z, p: -(p * (z.softmax(-1) + 1e-9).log()).sum(-1).mean())


def q5_hard_target():
    return _q5(loss=lambda z, p: -z.log_softmax(-1)[range(len(z)), p.argmax(-1)].mean())


def q5_gradient_sign():
    return _q5(gradient=lambda q, p: (p - q) / len(q))


def q5_gradient_not_a_mean():
    return _q5(gradient=lambda q, p: q - p)


def q5_gradient_without_targets():
    return _q5(gradient=lambda q, p: q / len(q))


def q5_gradient_with_respect_to_q():
    return _q5(gradient=lambda q, p: -p / q / len(q))


def q5_calls_torch():
    return _q5(loss=lambda z, p: torch.nn.functional.cross_entropy(z, p)) | {
        "loss_and_gradient": _calls_torch
    }


def _calls_torch(z, p):
    loss = torch.nn.functional.cross_entropy(z, p)
    return loss, (z.softmax(-1) - p) / len(z)


def q5_one_shift_for_all_rows():
    def loss(z, p):
        z = z - z.max()
        return -(p * (z - z.exp().sum(-1, keepdim=True).log())).sum(-1).mean()

    return _q5(loss=loss)


def q5_autograd():
    def loss_and_gradient(z, p):
        z = z.detach().requires_grad_()
        loss = -(p * z.log_softmax(-1)).sum(-1).mean()
        return loss.detach(), torch.autograd.grad(loss, z)[0]

    return _q5() | {"loss_and_gradient": loss_and_gradient}


def q5_differences():
    def loss_and_gradient(z, p):
        loss, step = _q5()["loss_and_gradient"], 1e-4
        gradient = torch.zeros_like(z)
        for place in range(z.numel()):
            move = torch.zeros_like(z)
            move.view(-1)[place] = step
            up, down = loss(z + move, p)[0], loss(z - move, p)[0]
            gradient.view(-1)[place] = (up - down) / (2 * step)
        return loss(z, p)[0], gradient

    return _q5() | {"loss_and_gradient": loss_and_gradient}


def q5_float32():
    return _q5(loss=lambda z, p: -(p * z.float().log_softmax(-1)).sum(-1).mean())


def q5_changes_the_logits():
    def loss_and_gradient(z, p):
        z -= z.max(-1, keepdim=True).values
        return _q5()["loss_and_gradient"](z, p)

    return _q5() | {"loss_and_gradient": loss_and_gradient}


def q5_changes_the_targets():
    def loss_and_gradient(z, p):
        loss, gradient = _q5()["loss_and_gradient"](z, p)
        return loss, p.copy_(gradient)

    return _q5() | {"loss_and_gradient": loss_and_gradient}


def q5_floor_zero():
    return _q5(floor=0.0)


def q5_floor_in_bits():
    return _q5(floor=FLOOR / math.log(2))


def q5_floor_right_token_only():
    return _q5(floor=-math.log(0.85))


def q5_floor_one_of_the_others():
    return _q5(floor=-(0.85 * math.log(0.85) + 0.05 * math.log(0.05)))


def q5_floor_uniform():
    return _q5(floor=math.log(4))


def q5_floor_negative():
    return _q5(floor=-FLOOR)


# ---------------------------------------------------------------------------- q6: the loop


def _q6(distribution, ids, n, end, context, draw, *, keep_end=False):
    for _ in range(n):
        token = draw(distribution(ids[-context:]))
        if token == end and not keep_end:
            break
        ids.append(token)
        if token == end:
            break
    return ids


def _drawn(generator):
    return lambda p: torch.multinomial(p, 1, generator=generator).item()


def q6_changes_the_prompt(distribution, prompt, n_tokens, end, max_context, generator):
    return _q6(distribution, prompt, n_tokens, end, max_context, _drawn(generator))


def q6_greedy(distribution, prompt, n_tokens, end, max_context, generator):
    return _q6(distribution, list(prompt), n_tokens, end, max_context, lambda p: p.argmax().item())


def q6_no_generator(distribution, prompt, n_tokens, end, max_context, generator):
    return _q6(distribution, list(prompt), n_tokens, end, max_context, _drawn(None))


def q6_keeps_the_end(distribution, prompt, n_tokens, end, max_context, generator):
    draw = _drawn(generator)
    return _q6(distribution, list(prompt), n_tokens, end, max_context, draw, keep_end=True)


def q6_never_stops(distribution, prompt, n_tokens, end, max_context, generator):
    return _q6(distribution, list(prompt), n_tokens, None, max_context, _drawn(generator))


def q6_whole_context(distribution, prompt, n_tokens, end, max_context, generator):
    return _q6(distribution, list(prompt), n_tokens, end, 10**6, _drawn(generator))


def q6_first_tokens(distribution, prompt, n_tokens, end, max_context, generator):
    def first(ids):
        return distribution(whole[:max_context])

    whole = list(prompt)
    return _q6(first, whole, n_tokens, end, 10**6, _drawn(generator))


def q6_sees_only_the_prompt(distribution, prompt, n_tokens, end, max_context, generator):
    def blind(_):
        return distribution(list(prompt)[-max_context:])

    return _q6(blind, list(prompt), n_tokens, end, max_context, _drawn(generator))


def q6_without_the_prompt(distribution, prompt, n_tokens, end, max_context, generator):
    out = _q6(distribution, list(prompt), n_tokens, end, max_context, _drawn(generator))
    return out[len(prompt) :]


def q6_counts_the_prompt(distribution, prompt, n_tokens, end, max_context, generator):
    n = n_tokens - len(prompt)
    return _q6(distribution, list(prompt), n, end, max_context, _drawn(generator))


def q6_one_short(distribution, prompt, n_tokens, end, max_context, generator):
    return _q6(distribution, list(prompt), n_tokens - 1, end, max_context, _drawn(generator))


def q6_drops_what_it_cannot_see(distribution, prompt, n_tokens, end, max_context, generator):
    out = _q6(distribution, list(prompt), n_tokens, end, max_context, _drawn(generator))
    return out[-max(max_context, n_tokens) :]


def q6_goes_on_behind_the_end(distribution, prompt, n_tokens, end, max_context, generator):
    ids, draw = list(prompt), _drawn(generator)
    for _ in range(n_tokens):
        token = draw(distribution(ids[-max_context:]))
        if token != end:
            ids.append(token)
    return ids


def q6_cuts_at_the_end_afterwards(distribution, prompt, n_tokens, end, max_context, generator):
    out = _q6(distribution, list(prompt), n_tokens, None, max_context, _drawn(generator))
    new = out[len(prompt) :]
    return list(prompt) + (new[: new.index(end)] if end in new else new)


def q6_an_end_in_the_prompt_stops_it(distribution, prompt, n_tokens, end, max_context, generator):
    if end in prompt:
        return list(prompt)
    return _q6(distribution, list(prompt), n_tokens, end, max_context, _drawn(generator))


def q6_removes_every_end(distribution, prompt, n_tokens, end, max_context, generator):
    out = _q6(distribution, list(prompt), n_tokens, end, max_context, _drawn(generator))
    return [token for token in out if token != end]


def q6_end_zero_is_false(distribution, prompt, n_tokens, end, max_context, generator):
    return _q6(distribution, list(prompt), n_tokens, end or None, max_context, _drawn(generator))


def q6_tensors_in_the_list(distribution, prompt, n_tokens, end, max_context, generator):
    def draw(p):
        return torch.multinomial(p, 1, generator=generator)[0]

    return _q6(distribution, list(prompt), n_tokens, end, max_context, draw)


def q6_draws_two_and_keeps_one(distribution, prompt, n_tokens, end, max_context, generator):
    def draw(p):
        return torch.multinomial(p, 2, replacement=True, generator=generator)[0].item()

    return _q6(distribution, list(prompt), n_tokens, end, max_context, draw)


def q6_at_least_one(distribution, prompt, n_tokens, end, max_context, generator):
    n = max(n_tokens, 1)
    return _q6(distribution, list(prompt), n, end, max_context, _drawn(generator))
