"""Wrong answers to exercises/12_glm: each is a mistake people make, and each must fail."""

import torch

# ------------------------------------------------------------------------------- q1: the numbers


def _q1(n_context=15, n_tokens=26, n_targets=11, last_position=(12, 5)):
    return {
        "n_context": n_context,
        "n_tokens": n_tokens,
        "n_targets": n_targets,
        "last_position": last_position,
    }


def q1_no_masks():
    return _q1(n_context=12)


def q1_ranges_without_their_ends():
    return _q1(n_context=14)


def q1_nothing_new_in_part_b():
    return _q1(n_tokens=23)


def q1_same_length():
    return _q1(n_tokens=20)


def q1_end_tokens_are_read():
    return _q1(n_tokens=29)


def q1_no_end_tokens():
    return _q1(n_targets=8)


def q1_all_are_targets():
    return _q1(n_targets=26)


def q1_counts_on():
    return _q1(last_position=(25, 5))


def q1_place_of_the_token():
    return _q1(last_position=(17, 5))


def q1_place_of_the_text():
    return _q1(last_position=(14, 5))


def q1_holes_take_no_place():
    return _q1(last_position=(10, 5))


def q1_one_place_off():
    return _q1(last_position=(13, 5))


def q1_first_span_of_the_text():
    return _q1(last_position=(3, 4))


def q1_second_span_of_the_text():
    return _q1(last_position=(8, 5))


def q1_block_from_zero():
    return _q1(last_position=(12, 4))


def q1_block_goes_on():
    return _q1(last_position=(12, 11))


def q1_swapped():
    return _q1(last_position=(5, 12))


def q1_one_number():
    return _q1(last_position=3)


# ----------------------------------------------------------------------------------- q2: the mask


def _mask(context, t, in_a, in_b):
    place = torch.arange(t)
    return in_a(place, context[:, None, None]) | in_b(place, place[:, None])


def q2_all_causal(context, t):
    return torch.ones(len(context), t, t).tril().bool()


def q2_one_too_long(context, t):
    return _mask(context, t, torch.le, torch.le)


def q2_hides_itself(context, t):
    return _mask(context, t, torch.lt, torch.lt)


def q2_transposed(context, t):
    return _mask(context, t, torch.lt, torch.le).transpose(1, 2)


def q2_part_a_sees_part_b(context, t):
    place = torch.arange(t)
    return _mask(context, t, torch.lt, torch.le) | (place[:, None] < context[:, None, None])


def q2_part_b_does_not_see_part_a(context, t):
    place = torch.arange(t)
    in_a = place < context[:, None, None]
    same = in_a == in_a.transpose(1, 2)
    return _mask(context, t, torch.lt, torch.le) & same


def q2_part_b_sees_all_of_part_b(context, t):
    in_b = torch.arange(t)[:, None] >= context[:, None, None]
    return (torch.arange(t) < context[:, None, None]) | in_b


def q2_numbers(context, t):
    return _mask(context, t, torch.lt, torch.le).float()


def q2_first_row_for_all(context, t):
    return _mask(context[:1].expand(len(context)), t, torch.lt, torch.le)


def q2_no_batch(context, t):
    return _mask(context, t, torch.lt, torch.le)[0]


def q2_hidden_is_true(context, t):
    return ~_mask(context, t, torch.lt, torch.le)


def q2_heads_axis(context, t):
    return _mask(context, t, torch.lt, torch.le)[:, None]


def q2_seven_tokens(context, t):
    return _mask(context, 7, torch.lt, torch.le)


def q2_changes_context(context, t):
    mask = _mask(context, t, torch.lt, torch.le)
    context += 1
    return mask


def q2_returns_nothing(context, t):
    _mask(context, t, torch.lt, torch.le)


# --------------------------------------------------------------------------------- q3: the blanks


def _cut(text, spans, order, mask, start, end, **change):
    tokens, holes, last = [], [], 0
    for a, b in spans:
        tokens += text[last:a]
        holes.append(a if change.get("old_places") else len(tokens))
        tokens += [mask] * (b - a if change.get("many_masks") else 1)
        last = b
    if not change.get("no_rest"):
        tokens += text[last:]
    n = len(tokens)
    order = [order.index(i) for i in range(len(order))] if change.get("inverse") else order
    targets, places, inner, count = [None] * n, list(range(n)), [0] * n, 0
    for i in range(len(spans)) if change.get("no_order") else order:
        span = text[spans[i][0] : spans[i][1]]
        read = [start, *span, end] if change.get("reads_end") else [start, *span]
        said = [*span, end, end] if change.get("reads_end") else [*span, end]
        said = read if change.get("not_shifted") else said
        said = [None, *span] if change.get("no_end") else said
        tokens += read
        targets += said
        places += [holes[i]] * len(read)
        first = count + 1 if change.get("goes_on") else 1 - change.get("from_zero", 0)
        inner += range(first, first + len(read))
        count += len(read)
    if change.get("counts_on"):
        places = list(range(len(tokens)))
    if change.get("targets_in_a"):
        targets[:n] = tokens[:n]
    return tokens, targets, places, inner


def _with(**change):
    def wrong(text, spans, order, mask, start, end):
        return _cut(text, spans, order, mask, start, end, **change)

    return wrong


q3_one_mask_a_token = _with(many_masks=1)
q3_places_of_the_text = _with(old_places=1)
q3_order_ignored = _with(no_order=1)
q3_end_is_read = _with(reads_end=1)
q3_not_shifted = _with(not_shifted=1)
q3_no_end_token = _with(no_end=1)
q3_block_goes_on = _with(goes_on=1)
q3_block_from_zero = _with(from_zero=1)
q3_counts_on = _with(counts_on=1)
q3_part_a_is_predicted = _with(targets_in_a=1)
q3_rest_forgotten = _with(no_rest=1)
q3_order_read_as_its_inverse = _with(inverse=1)


def q3_part_a_has_places_of_the_text(text, spans, order, mask, start, end):
    tokens, targets, places, inner = _cut(text, spans, order, mask, start, end)
    old, last = [], 0
    for a, b in spans:
        old += range(last, a + 1)
        last = b
    old += range(last, len(text))
    return tokens, targets, old + places[len(old) :], inner


def q3_last_span_first(text, spans, order, mask, start, end):
    turned = order if order == sorted(order) else sorted(order, reverse=True)
    return _cut(text, spans, turned, mask, start, end)


def q3_the_small_example_and_zeros(text, spans, order, mask, start, end):
    out = _cut(text, spans, order, mask, start, end)
    return (
        out if len(text) < 20 else ([0] * len(out[0]), [0] * len(out[0]), out[2], [0] * len(out[0]))
    )


def q3_the_example_by_heart(text, spans, order, mask, start, end):
    n = 26
    if len(text) == 6:
        return _cut(text, spans, order, mask, start, end)
    return [0] * n, [0] * n, [*range(15), *[7] * 5, *[0] * 4, *[3] * 2], [0] * n


def q3_changes_its_input(text, spans, order, mask, start, end):
    out = _cut(list(text), spans, order, mask, start, end)
    text.clear()
    return out


def q3_three_lists(text, spans, order, mask, start, end):
    return _cut(text, spans, order, mask, start, end)[:3]


def q3_returns_nothing(text, spans, order, mask, start, end):
    _cut(text, spans, order, mask, start, end)


# --------------------------------------------------------------------------------- q4: the filler


def _fill(predict, text, hole, start, end, limit, **change):
    tokens, places, inner = list(text), list(range(len(text))), [0] * len(text)
    span, new = [], start
    for step in range(limit):
        tokens.append(new)
        places.append(
            len(tokens) - 1 if change.get("counts_on") else hole + change.get("step", 0) * step
        )
        inner.append(step + 1 - change.get("from_zero", 0))
        context = len(text) + change.get("grows", 0) * step + change.get("more", 0)
        new = predict(tokens, places, inner, context)
        if new == end and not change.get("never_ends"):
            if change.get("keeps_end"):
                span.append(new)
            break
        span.append(new)
    return [start, *span] if change.get("keeps_start") else span


def _filler(**change):
    def wrong(predict, text, hole, start, end, limit):
        return _fill(predict, text, hole, start, end, limit, **change)

    return wrong


q4_as_it_was = _filler(step=1, grows=1)
q4_places_only_repaired = _filler(grows=1)
q4_context_only_repaired = _filler(step=1)
q4_counts_on_behind_the_text = _filler(counts_on=1)
q4_one_too_long = _filler(more=1)
q4_one_too_short = _filler(more=-1)
q4_block_from_zero = _filler(from_zero=1)
q4_keeps_the_end = _filler(keeps_end=1)
q4_keeps_the_start = _filler(keeps_start=1)
q4_never_ends = _filler(never_ends=1)


def q4_one_call_too_many(predict, text, hole, start, end, limit):
    return _fill(predict, text, hole, start, end, limit + 1)[:limit]


def q4_nothing_is_context(predict, text, hole, start, end, limit):
    return _fill(lambda a, b, c, d: predict(a, b, c, 0), text, hole, start, end, limit)


def q4_fills_into_part_a(predict, text, hole, start, end, limit):
    span = []
    while len(span) < limit:
        tokens = [*text[:hole], *span, *text[hole:], start]
        new = predict(
            tokens, [*range(len(tokens) - 1), hole], [0] * (len(tokens) - 1) + [1], len(text)
        )
        if new == end:
            break
        span.append(new)
    return span


# ---------------------------------------------------------------------------------- q5: the leaks


def _leaks(run, tokens, context, allowed=None, moved=None, places=None, change=None):
    allowed = allowed or (lambda i, j: j < context or j <= i)
    moved = moved or (lambda a, b: (a != b).any(dim=-1))
    change = change or (lambda token: (token + 1) % 10)
    before, found = run(tokens), set()
    for j in places or range(len(tokens)):
        other = tokens.clone()
        other[j] = change(other[j])
        for i in moved(before, run(other)).nonzero()[:, 0].tolist():
            if not allowed(i, j):
                found.add((i, j))
    return found


def q5_everything_that_moves(run, tokens, context):
    return _leaks(run, tokens, context, allowed=lambda i, j: False)


def q5_causal_rule(run, tokens, context):
    return _leaks(run, tokens, context, allowed=lambda i, j: j <= i)


def q5_itself_is_a_leak(run, tokens, context):
    return _leaks(run, tokens, context, allowed=lambda i, j: j < context or j < i)


def q5_only_part_a_notices(run, tokens, context):
    return _leaks(run, tokens, context, allowed=lambda i, j: i >= context or j < context)


def q5_only_part_b_notices(run, tokens, context):
    return _leaks(run, tokens, context, allowed=lambda i, j: i < context or j <= i)


def q5_with_a_tolerance(run, tokens, context):
    return _leaks(
        run, tokens, context, moved=lambda a, b: ~torch.isclose(a, b, atol=1e-9).all(dim=-1)
    )


def q5_first_number_only(run, tokens, context):
    return _leaks(run, tokens, context, moved=lambda a, b: a[:, 0] != b[:, 0])


def q5_all_numbers_must_move(run, tokens, context):
    return _leaks(run, tokens, context, moved=lambda a, b: (a != b).all(dim=-1))


def q5_pairs_turned_round(run, tokens, context):
    return {(j, i) for i, j in _leaks(run, tokens, context)}


def q5_last_token_forgotten(run, tokens, context):
    return _leaks(run, tokens, context, places=range(len(tokens) - 1))


def q5_always_to_nine(run, tokens, context):
    return _leaks(run, tokens, context, change=lambda token: 9)


def _always_to(value):
    def wrong(run, tokens, context):
        return _leaks(run, tokens, context, change=lambda token: value)

    return wrong


q5_always_to_zero = _always_to(0)
q5_always_to_one = _always_to(1)
q5_always_to_three = _always_to(3)
q5_always_to_four = _always_to(4)
q5_always_to_six = _always_to(6)
q5_always_to_seven = _always_to(7)
q5_always_to_eight = _always_to(8)


def q5_context_is_three(run, tokens, context):
    return _leaks(run, tokens, 3)


def q5_last_number_only(run, tokens, context):
    return _leaks(run, tokens, context, moved=lambda a, b: a[:, -1] != b[:, -1])


def q5_sum_of_the_numbers(run, tokens, context):
    return _leaks(run, tokens, context, moved=lambda a, b: a.sum(-1) != b.sum(-1))


def q5_an_id_that_does_not_exist(run, tokens, context):
    return _leaks(run, tokens, context, change=lambda token: token + 1)


def q5_pairs_of_tensors(run, tokens, context):
    return {(torch.tensor(i), torch.tensor(j)) for i, j in _leaks(run, tokens, context)}


def q5_only_part_a_may_leak(run, tokens, context):
    return _leaks(run, tokens, context, allowed=lambda i, j: not i < context <= j)


def q5_a_list(run, tokens, context):
    return sorted(_leaks(run, tokens, context))


def q5_changes_the_tokens(run, tokens, context):
    found = _leaks(run, tokens, context)
    tokens[0] = (tokens[0] + 1) % 10
    return found


def q5_always_clean(run, tokens, context):
    return set()


def q5_returns_nothing(run, tokens, context):
    _leaks(run, tokens, context)
