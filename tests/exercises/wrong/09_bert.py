"""Wrong answers to exercises/09_bert: each is a mistake people make, and each must fail."""

import random

import torch

# ----------------------------------------------------------------------------- q1: count an ALBERT


def _encoder(rows=1067, width=40, norm=80, widen=40 * 96 + 96, layers=1, vectors=13, extra=0):
    return rows * width + norm + widen + layers * (12 * 96**2 + vectors * 96) + extra


def _head(extra=0):
    return 96 * 40 + 40 + 2 * 40 + 1000 + extra


def _q1(n_encoder=None, n_mlm_head=None):
    return {
        "n_encoder": _encoder() if n_encoder is None else n_encoder,
        "n_mlm_head": _head() if n_mlm_head is None else n_mlm_head,
    }


def q1_three_layers():
    return _q1(_encoder(layers=3))


def q1_wide_tables():
    return _q1(_encoder(width=96))


def q1_formula_of_the_chapter():
    return _q1(_encoder(width=96, norm=192, widen=0, layers=3))


def q1_bert_with_one_layer():
    return _q1(_encoder(width=96, norm=192, widen=0))


def q1_no_embedding_norm():
    return _q1(_encoder(norm=0))


def q1_norm_of_width_d():
    return _q1(_encoder(norm=192))


def q1_nothing_widens():
    return _q1(_encoder(widen=0))


def q1_widens_without_bias():
    return _q1(_encoder(widen=40 * 96))


def q1_bias_of_width_e():
    return _q1(_encoder(widen=40 * 96 + 40))


def q1_sinusoids():
    return _q1(_encoder(rows=1003))


def q1_no_segments():
    return _q1(_encoder(rows=1064))


def q1_two_segments():
    return _q1(_encoder(rows=1066))


def q1_final_norm():
    return _q1(_encoder(extra=192))


def q1_pooler_in_the_encoder():
    return _q1(_encoder(extra=96**2 + 96))


def q1_output_matrix_in_the_encoder():
    return _q1(_encoder(extra=40_000))


def q1_no_vectors():
    return _q1(_encoder(vectors=0))


def q1_no_biases():
    return _q1(_encoder(vectors=4))


def q1_no_norms_in_the_layer():
    return _q1(_encoder(vectors=9))


def q1_head_of_bert():
    return _q1(n_mlm_head=96**2 + 96 + 2 * 96 + 1000)


def q1_head_without_output_bias():
    return _q1(n_mlm_head=_head(-1000))


def q1_head_with_a_matrix_of_its_own():
    return _q1(n_mlm_head=_head(40_000))


def q1_head_without_norm():
    return _q1(n_mlm_head=_head(-80))


def q1_head_with_a_norm_of_width_d():
    return _q1(n_mlm_head=_head(2 * 56))


def q1_head_without_bias():
    return _q1(n_mlm_head=_head(-40))


def q1_head_with_an_output_bias_of_e():
    return _q1(n_mlm_head=_head(40 - 1000))


def q1_head_with_pooler():
    return _q1(n_mlm_head=_head(96**2 + 96))


# ------------------------------------------------------------- q2: eighty, ten, ten, word by word


def _first(begins):
    places = torch.arange(begins.shape[1]).expand_as(begins)
    return torch.where(begins, places, 0).cummax(1).values


def _corrupt(tokens, chosen, fate, other, mask_id, low=0.8, high=0.9):
    masked, replaced = chosen & (fate < low), chosen & (fate >= low) & (fate < high)
    inputs = torch.where(masked, torch.full_like(tokens, mask_id), tokens)
    return torch.where(replaced, other, inputs), tokens.masked_fill(~chosen, -100)


def _words(tokens, begins, chosen, fate, other, mask_id, low=0.8, high=0.9):
    first = _first(begins)
    chosen, fate = chosen.gather(1, first), fate.gather(1, first)
    return _corrupt(tokens, chosen, fate, other, mask_id, low, high)


def q2_piece_by_piece(tokens, begins, chosen, fate, other, mask_id):
    return _corrupt(tokens, chosen, fate, other, mask_id)


def q2_each_piece_its_own_fate(tokens, begins, chosen, fate, other, mask_id):
    return _corrupt(tokens, chosen.gather(1, _first(begins)), fate, other, mask_id)


def q2_each_piece_its_own_choice(tokens, begins, chosen, fate, other, mask_id):
    return _corrupt(tokens, chosen, fate.gather(1, _first(begins)), other, mask_id)


def q2_first_pieces_only(tokens, begins, chosen, fate, other, mask_id):
    return _corrupt(tokens, chosen & begins, fate, other, mask_id)


def q2_one_random_token_a_word(tokens, begins, chosen, fate, other, mask_id):
    return _words(tokens, begins, chosen, fate, other.gather(1, _first(begins)), mask_id)


def q2_number_of_the_word_as_place(tokens, begins, chosen, fate, other, mask_id):
    word = begins.long().cumsum(1) - 1
    return _corrupt(tokens, chosen.gather(1, word), fate.gather(1, word), other, mask_id)


def q2_words_that_cross_rows(tokens, begins, chosen, fate, other, mask_id):
    flat = [part.reshape(1, -1) for part in (tokens, begins, chosen, fate, other)]
    flat[1] = flat[1].roll(-1, 1)
    flat[1][0, 0] = True
    return tuple(part.view_as(tokens) for part in _words(*flat, mask_id))


def q2_chosen_if_any_piece_is(tokens, begins, chosen, fate, other, mask_id):
    first = _first(begins)
    some = torch.zeros_like(tokens).scatter_add(1, first, chosen.long()) > 0
    return _corrupt(tokens, some.gather(1, first), fate.gather(1, first), other, mask_id)


def q2_everything_masked(tokens, begins, chosen, fate, other, mask_id):
    return _words(tokens, begins, chosen, fate, other, mask_id, 1.1, 1.1)


def q2_nothing_kept(tokens, begins, chosen, fate, other, mask_id):
    return _words(tokens, begins, chosen, fate, other, mask_id, 0.8, 1.1)


def q2_nothing_replaced(tokens, begins, chosen, fate, other, mask_id):
    return _words(tokens, begins, chosen, fate, other, mask_id, 0.8, 0.8)


def q2_masked_up_to_90(tokens, begins, chosen, fate, other, mask_id):
    return _words(tokens, begins, chosen, fate, other, mask_id, 0.9, 0.9)


def q2_replaced_up_to_89(tokens, begins, chosen, fate, other, mask_id):
    return _words(tokens, begins, chosen, fate, other, mask_id, 0.8, 0.89)


def q2_masked_at_the_line(tokens, begins, chosen, fate, other, mask_id):
    return _words(tokens, begins, chosen, fate, other, mask_id, 0.8 + 1e-9, 0.9)


def q2_targets_only_where_masked(tokens, begins, chosen, fate, other, mask_id):
    inputs, targets = _words(tokens, begins, chosen, fate, other, mask_id)
    return inputs, targets.masked_fill(fate.gather(1, _first(begins)) >= 0.9, -100)


def q2_targets_everywhere(tokens, begins, chosen, fate, other, mask_id):
    return _words(tokens, begins, chosen, fate, other, mask_id)[0], tokens.clone()


def q2_targets_are_the_inputs(tokens, begins, chosen, fate, other, mask_id):
    inputs, targets = _words(tokens, begins, chosen, fate, other, mask_id)
    replaced = fate.gather(1, _first(begins)) >= 0.8
    return inputs, torch.where(replaced & (targets >= 0), inputs, targets)


def q2_float_targets(tokens, begins, chosen, fate, other, mask_id):
    inputs, targets = _words(tokens, begins, chosen, fate, other, mask_id)
    return inputs, targets.float()


def q2_mask_is_four(tokens, begins, chosen, fate, other, mask_id):
    return _words(tokens, begins, chosen, fate, other, 4)


def q2_begins_overwritten(tokens, begins, chosen, fate, other, mask_id):
    found = _words(tokens, begins, chosen, fate, other, mask_id)
    begins.zero_()
    return found


def q2_in_place(tokens, begins, chosen, fate, other, mask_id):
    inputs, targets = _words(tokens, begins, chosen, fate, other, mask_id)
    tokens[:] = inputs
    return tokens, targets


# ------------------------------------------------------------------------------ q3: does it follow


def _places(documents):
    return [(d, s) for d, text in enumerate(documents) for s in range(len(text) - 1)]


def q3_labels_swapped(documents, rng):
    d, s = rng.choice(_places(documents))
    if rng.random() < 0.5:
        return documents[d][s], documents[d][s + 1], 1
    other = rng.choice([i for i in range(len(documents)) if i != d])
    return documents[d][s], rng.choice(documents[other]), 0


def q3_same_document(documents, rng):
    d, s = rng.choice(_places(documents))
    if rng.random() < 0.5:
        return documents[d][s], documents[d][s + 1], 0
    return documents[d][s], rng.choice(documents[d]), 1


def q3_any_document(documents, rng):
    d, s = rng.choice(_places(documents))
    if rng.random() < 0.5:
        return documents[d][s], documents[d][s + 1], 0
    return documents[d][s], rng.choice(rng.choice(documents)), 1


def q3_no_successor(documents, rng):
    places = [(d, s) for d, text in enumerate(documents) for s in range(len(text))]
    d, s = rng.choice(places)
    if rng.random() < 0.5:
        return documents[d][s], documents[d][s + 1], 0
    other = rng.choice([i for i in range(len(documents)) if i != d])
    return documents[d][s], rng.choice(documents[other]), 1


def q3_document_first(documents, rng):
    d = rng.choice([i for i, text in enumerate(documents) if len(text) > 1])
    s = rng.randrange(len(documents[d]) - 1)
    if rng.random() < 0.5:
        return documents[d][s], documents[d][s + 1], 0
    other = rng.choice([i for i in range(len(documents)) if i != d])
    return documents[d][s], rng.choice(documents[other]), 1


def q3_one_in_three(documents, rng):
    d, s = rng.choice(_places(documents))
    if rng.random() < 2 / 3:
        return documents[d][s], documents[d][s + 1], 0
    other = rng.choice([i for i in range(len(documents)) if i != d])
    return documents[d][s], rng.choice(documents[other]), 1


def q3_compares_texts(documents, rng):
    d, s = rng.choice(_places(documents))
    if rng.random() < 0.5:
        return documents[d][s], documents[d][s + 1], 0
    other = rng.choice([text for text in documents if text != documents[d]])
    return documents[d][s], rng.choice(other), 1


def q3_always_the_first_sentence(documents, rng):
    d, s = rng.choice(_places(documents))
    if rng.random() < 0.5:
        return documents[d][s], documents[d][s + 1], 0
    other = rng.choice([i for i in range(len(documents)) if i != d])
    return documents[d][s], documents[other][0], 1


def q3_all_sentences_alike(documents, rng):
    d, s = rng.choice(_places(documents))
    if rng.random() < 0.5:
        return documents[d][s], documents[d][s + 1], 0
    rest = [text for i, document in enumerate(documents) if i != d for text in document]
    return documents[d][s], rng.choice(rest), 1


def q3_leaves_out_documents_with_the_sentence(documents, rng):
    d, s = rng.choice(_places(documents))
    first = documents[d][s]
    if rng.random() < 0.5:
        return first, documents[d][s + 1], 0
    rest = [text for text in documents if first not in text]
    rest = rest or [text for i, text in enumerate(documents) if i != d]
    return first, rng.choice(rng.choice(rest)), 1


def q3_place_by_text(documents, rng):
    d, s = rng.choice(_places(documents))
    first = documents[d][s]
    if rng.random() < 0.5:
        return first, documents[d][documents[d].index(first) + 1], 0
    other = rng.choice([i for i in range(len(documents)) if i != d])
    return first, rng.choice(documents[other]), 1


def q3_document_by_text(documents, rng):
    d, s = rng.choice(_places(documents))
    first, second = documents[d][s], documents[d][s + 1]
    if rng.random() < 0.5:
        return first, second, 0
    d = next(i for i, text in enumerate(documents) if first in text)
    other = rng.choice([i for i in range(len(documents)) if i != d])
    return first, rng.choice(documents[other]), 1


def q3_each_text_once(documents, rng):
    follows = {documents[d][s]: (d, documents[d][s + 1]) for d, s in _places(documents)}
    first = rng.choice(sorted(follows))
    d, second = follows[first]
    if rng.random() < 0.5:
        return first, second, 0
    other = rng.choice([i for i in range(len(documents)) if i != d])
    return first, rng.choice(documents[other]), 1


def _pair(documents, rng, last=1):
    d, s = rng.choice(_places(documents))
    if rng.random() < 0.5:
        return documents[d][s], documents[d][s + 1], 0
    text = documents[rng.choice([i for i in range(len(documents)) if i != d])]
    return documents[d][s], rng.choice([*text, *text[-1:] * (last - 1)]), 1


def q3_module_random(documents, rng):
    return _pair(documents, random)


_OWN = random.Random(0)


def q3_seed_ignored(documents, rng):
    return _pair(documents, _OWN)


def q3_fifty_three_in_a_hundred(documents, rng):
    d, s = rng.choice(_places(documents))
    if rng.random() < 0.53:
        return documents[d][s], documents[d][s + 1], 0
    return (
        documents[d][s],
        rng.choice(documents[rng.choice([i for i in range(len(documents)) if i != d])]),
        1,
    )


def q3_last_sentence_three_times(documents, rng):
    return _pair(documents, rng, last=3)


# ------------------------------------------------------------------- q4: texts that share a row


def _unit(x):
    return x / x.norm(dim=-1, keepdim=True)


def _sums(hidden, text, n):
    real = text >= 0
    sums = torch.zeros(n, hidden.shape[-1], dtype=hidden.dtype)
    return sums.index_add(0, text[real], hidden[real])


def _each(hidden, text, n, one):
    return torch.stack([one(hidden[text == k]) for k in range(n)])


def q4_as_given(hidden, text, n):
    sums = torch.zeros(n, hidden.shape[-1], dtype=hidden.dtype)
    sums[text] += hidden
    return sums / sums.norm(dim=0, keepdim=True)


def q4_only_the_norm_mended(hidden, text, n):
    sums = torch.zeros(n, hidden.shape[-1], dtype=hidden.dtype)
    sums[text] += hidden
    return _unit(sums)


def q4_the_last_token_wins(hidden, text, n):
    sums, real = torch.zeros(n, hidden.shape[-1], dtype=hidden.dtype), text >= 0
    sums[text[real]] += hidden[real]
    return _unit(sums)


def q4_padding_in_the_last_text(hidden, text, n):
    sums = torch.zeros(n, hidden.shape[-1], dtype=hidden.dtype)
    return _unit(sums.index_put((text,), hidden, accumulate=True))


def q4_padding_in_the_first_text(hidden, text, n):
    sums = torch.zeros(n, hidden.shape[-1], dtype=hidden.dtype)
    return _unit(sums.index_put((text.clamp(min=0),), hidden, accumulate=True))


def q4_padding_stops_it(hidden, text, n):
    sums = torch.zeros(n, hidden.shape[-1], dtype=hidden.dtype)
    return _unit(sums.index_add(0, text.flatten(), hidden.flatten(0, 1)))


def q4_norm_over_the_texts(hidden, text, n):
    sums = _sums(hidden, text, n)
    return sums / sums.norm(dim=0, keepdim=True)


def q4_one_norm_for_all(hidden, text, n):
    sums = _sums(hidden, text, n)
    return sums / sums.norm()


def q4_not_normalized(hidden, text, n):
    return _each(hidden, text, n, lambda rows: rows.mean(0))


def q4_first_token(hidden, text, n):
    return _unit(_each(hidden, text, n, lambda rows: rows[0]))


def q4_largest_entry(hidden, text, n):
    return _unit(_each(hidden, text, n, lambda rows: rows.amax(0)))


def q4_tokens_normalized_first(hidden, text, n):
    return _unit(_each(hidden, text, n, lambda rows: _unit(rows).mean(0)))


def q4_mean_of_the_row(hidden, text, n):
    return _unit(torch.stack([hidden[(text == k).any(1)][0].mean(0) for k in range(n)]))


def q4_in_place(hidden, text, n):
    hidden *= (text >= 0)[..., None]
    return _unit(_sums(hidden, text, n))


# ------------------------------------------------------------------- q5: where to draw the line


def _rule(scores, labels, threshold):
    predicted = scores >= threshold
    hits, n, there = int(labels[predicted].sum()), int(predicted.sum()), int(labels.sum())
    return hits / n, hits / there, 2 * hits / (n + there)


def _best(scores, labels, key):
    threshold = max(scores.tolist(), key=key)
    return (threshold, *_rule(scores, labels, threshold))


def q5_best_accuracy(scores, labels):
    return _best(
        scores, labels, lambda t: int(((scores >= t).long() == labels).sum()) + 1e-6 * float(t)
    )


def q5_best_precision(scores, labels):
    return _best(scores, labels, lambda t: _rule(scores, labels, t)[0])


def q5_best_recall(scores, labels):
    return _best(scores, labels, lambda t: _rule(scores, labels, t)[1])


def q5_median(scores, labels):
    threshold = float(scores.sort().values[len(scores) // 2])
    return (threshold, *_rule(scores, labels, threshold))


def q5_above_and_not_at_least(scores, labels):
    rules = []
    for threshold in scores.tolist():
        predicted = scores > threshold
        hits, n, there = int(labels[predicted].sum()), int(predicted.sum()), int(labels.sum())
        rules.append((2 * hits / (n + there), threshold, hits / n if n else 0.0, hits / there))
    f1, threshold, precision, recall = max(rules)
    return threshold, precision, recall, f1


def q5_equal_scores_cut_apart(scores, labels):
    order = scores.argsort(descending=True, stable=True)
    hits, n = labels[order].cumsum(0).double(), torch.arange(1, len(labels) + 1).double()
    f1 = 2 * hits / (n + labels.sum())
    i = int(f1.argmax())
    there = int(labels.sum())
    return float(scores[order[i]]), float(hits[i] / n[i]), float(hits[i]) / there, float(f1[i])


def q5_lowest_threshold(scores, labels):
    threshold = float(scores.min())
    return (threshold, *_rule(scores, labels, threshold))


def q5_halfway_between_two(scores, labels):
    threshold, *rest = _best(scores, labels, lambda t: _rule(scores, labels, t)[2])
    below = [s for s in scores.tolist() if s < threshold]
    return ((threshold + max(below)) / 2 if below else threshold - 1.0, *rest)


def q5_swapped(scores, labels):
    threshold, precision, recall, f1 = _best(scores, labels, lambda t: _rule(scores, labels, t)[2])
    return threshold, recall, precision, f1


def q5_arithmetic_mean(scores, labels):
    threshold, precision, recall, _ = _best(scores, labels, lambda t: _rule(scores, labels, t)[2])
    return threshold, precision, recall, (precision + recall) / 2


def q5_largest_arithmetic_mean(scores, labels):
    return _best(scores, labels, lambda t: sum(_rule(scores, labels, t)[:2]))


def q5_divides_by_zero(scores, labels):
    def f1(threshold):
        precision, recall, _ = _rule(scores, labels, threshold)
        return 2 * precision * recall / (precision + recall)

    return _best(scores, labels, f1)


def q5_class_zero(scores, labels):
    there = int((labels == 0).sum())
    rules = []
    for threshold in scores.tolist():
        predicted = scores < threshold
        hits, n = int((labels[predicted] == 0).sum()), int(predicted.sum())
        rules.append(
            (2 * hits / max(n + there, 1), threshold, hits / max(n, 1), hits / max(there, 1))
        )
    f1, threshold, precision, recall = max(rules)
    return threshold, precision, recall, f1


def q5_tensors(scores, labels):
    found = _best(scores, labels, lambda t: _rule(scores, labels, t)[2])
    return tuple(torch.tensor(value).double() for value in found)


# --------------------------------------------------------------------- q6: tags that fit together


def _pieces(scores, word_of, which):
    """The scores of each word, made from those of its pieces by `which`."""
    words = sorted({w for w in word_of if w is not None})
    return [
        which(torch.stack([s for s, w in zip(scores, word_of, strict=True) if w == k]))
        for k in words
    ]


def _search(rows, allowed, start=(0,)):
    best = [(0.0, []) if tag in start else (-float("inf"), []) for tag in range(3)]
    for row in rows:
        best = [
            (total + float(row[tag]), [*tags, tag])
            for tag in range(3)
            for total, tags in [max(best[k] for k in range(3) if allowed(k, tag))]
        ]
    return max(best)[1]


def _legal(before, tag):
    return tag != 2 or before != 0


def _of_firsts(scores, word_of):
    return _pieces(scores, word_of, lambda rows: rows[0])


def q6_each_word_for_itself(scores, word_of):
    return [int(row.argmax()) for row in _of_firsts(scores, word_of)]


def q6_begins_where_it_must(scores, word_of):
    tags = q6_each_word_for_itself(scores, word_of)
    return [1 if tag == 2 and (i == 0 or tags[i - 1] == 0) else tag for i, tag in enumerate(tags)]


def q6_drops_what_is_not_allowed(scores, word_of):
    tags = []
    for tag in q6_each_word_for_itself(scores, word_of):
        tags.append(0 if tag == 2 and (not tags or tags[-1] == 0) else tag)
    return tags


def q6_one_word_after_the_other(scores, word_of):
    tags = []
    for row in _of_firsts(scores, word_of):
        may = range(3) if tags and tags[-1] else range(2)
        tags.append(max(may, key=lambda tag: float(row[tag])))
    return tags


def q6_mean_of_the_pieces(scores, word_of):
    return _search(_pieces(scores, word_of, lambda rows: rows.mean(0)), _legal)


def q6_last_piece(scores, word_of):
    return _search(_pieces(scores, word_of, lambda rows: rows[-1]), _legal)


def q6_two_may_come_first(scores, word_of):
    return _search(_of_firsts(scores, word_of), _legal, start=(0, 1, 2))


def q6_two_after_two_forbidden(scores, word_of):
    return _search(_of_firsts(scores, word_of), lambda a, b: b != 2 or a == 1)


def q6_two_after_one_forbidden(scores, word_of):
    return _search(_of_firsts(scores, word_of), lambda a, b: b != 2 or a == 2, start=(0, 2))


def q6_zero_after_one_forbidden(scores, word_of):
    return _search(_of_firsts(scores, word_of), lambda a, b: _legal(a, b) and (a, b) != (1, 0))


def q6_a_tag_for_each_piece(scores, word_of):
    return _search(list(scores), _legal)


def q6_special_tokens_are_words(scores, word_of):
    numbers = [-1 if w is None else w for w in word_of]
    return _search(_of_firsts(scores, numbers), _legal)


def q6_smallest_sum(scores, word_of):
    return _search(_of_firsts(-scores, word_of), _legal)


def q6_tensor_of_tags(scores, word_of):
    return list(torch.tensor(_search(_of_firsts(scores, word_of), _legal)))
