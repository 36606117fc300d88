"""Wrong answers to exercises/09_bert: each is a mistake people make, and each must fail."""

import random

import torch

# ------------------------------------------------------------------------------- q1: count a BERT


def _encoder(rows=1067, norm=2, layers=3, matrices=12, vectors=13, extra=0):
    d = 96
    return rows * d + norm * d + layers * (matrices * d * d + vectors * d) + extra


def _head(extra=0):
    return 96**2 + 96 + 2 * 96 + 1000 + extra


def _q1(n_encoder=None, n_mlm_head=None):
    return {
        "n_encoder": _encoder() if n_encoder is None else n_encoder,
        "n_mlm_head": _head() if n_mlm_head is None else n_mlm_head,
    }


def q1_no_embedding_norm():
    return _q1(_encoder(norm=0))


def q1_one_layer():
    return _q1(_encoder(layers=1))


def q1_sinusoids():
    return _q1(_encoder(rows=1003))


def q1_output_matrix_in_the_encoder():
    return _q1(_encoder(extra=96_000))


def q1_no_vectors():
    return _q1(_encoder(vectors=0))


def q1_no_biases():
    return _q1(_encoder(vectors=4))


def q1_no_norms_in_layers():
    return _q1(_encoder(vectors=9))


def q1_no_segments():
    return _q1(_encoder(rows=1064))


def q1_two_segments():
    return _q1(_encoder(rows=1066))


def q1_neither_segments_nor_norm():
    return _q1(_encoder(rows=1064, norm=0))


def q1_final_norm():
    return _q1(_encoder(norm=4))


def q1_pooler_in_the_encoder():
    return _q1(_encoder(extra=96**2 + 96))


def q1_head_with_next_sentence():
    return _q1(n_mlm_head=_head(2 * 96 + 2))


def q1_head_with_a_bias_of_d():
    return _q1(n_mlm_head=_head(96 - 1000))


def q1_head_without_output_bias():
    return _q1(n_mlm_head=_head(-1000))


def q1_head_with_a_matrix_of_its_own():
    return _q1(n_mlm_head=_head(96_000))


def q1_head_without_norm():
    return _q1(n_mlm_head=_head(-192))


def q1_head_with_pooler():
    return _q1(n_mlm_head=_head(96**2 + 96))


# -------------------------------------------------------------------------- q2: eighty, ten, ten


def _corrupt(tokens, chosen, fate, other, mask_id, low=0.8, high=0.9):
    masked, replaced = chosen & (fate < low), chosen & (fate >= low) & (fate < high)
    inputs = torch.where(masked, torch.full_like(tokens, mask_id), tokens)
    return torch.where(replaced, other, inputs), tokens.masked_fill(~chosen, -100)


def q2_everything_masked(tokens, chosen, fate, other, mask_id):
    return _corrupt(tokens, chosen, fate, other, mask_id, 1.1, 1.1)


def q2_nothing_kept(tokens, chosen, fate, other, mask_id):
    return _corrupt(tokens, chosen, fate, other, mask_id, 0.8, 1.1)


def q2_nothing_replaced(tokens, chosen, fate, other, mask_id):
    return _corrupt(tokens, chosen, fate, other, mask_id, 0.8, 0.8)


def q2_masked_up_to_90(tokens, chosen, fate, other, mask_id):
    return _corrupt(tokens, chosen, fate, other, mask_id, 0.9, 0.9)


def q2_limits_wrong_way(tokens, chosen, fate, other, mask_id):
    masked, replaced = chosen & (fate <= 0.8), chosen & (fate > 0.8) & (fate <= 0.9)
    inputs = torch.where(masked, torch.full_like(tokens, mask_id), tokens)
    return torch.where(replaced, other, inputs), tokens.masked_fill(~chosen, -100)


def q2_targets_only_where_masked(tokens, chosen, fate, other, mask_id):
    inputs, _ = _corrupt(tokens, chosen, fate, other, mask_id)
    return inputs, tokens.masked_fill(~(chosen & (fate < 0.9)), -100)


def q2_targets_everywhere(tokens, chosen, fate, other, mask_id):
    return _corrupt(tokens, chosen, fate, other, mask_id)[0], tokens.clone()


def q2_targets_are_the_inputs(tokens, chosen, fate, other, mask_id):
    inputs, _ = _corrupt(tokens, chosen, fate, other, mask_id)
    return inputs, torch.where(chosen & (fate >= 0.8), inputs, tokens).masked_fill(~chosen, -100)


def q2_chosen_forgotten_for_random(tokens, chosen, fate, other, mask_id):
    inputs, targets = _corrupt(tokens, chosen, fate, other, mask_id)
    return torch.where((fate >= 0.8) & (fate < 0.9), other, inputs), targets


def q2_float_targets(tokens, chosen, fate, other, mask_id):
    inputs, _ = _corrupt(tokens, chosen, fate, other, mask_id)
    return inputs, torch.where(chosen, tokens.float(), -100.0)


def q2_mask_is_four(tokens, chosen, fate, other, mask_id):
    return _corrupt(tokens, chosen, fate, other, 4)


def q2_replaced_up_to_89(tokens, chosen, fate, other, mask_id):
    return _corrupt(tokens, chosen, fate, other, mask_id, 0.8, 0.89)


def q2_masked_at_the_line(tokens, chosen, fate, other, mask_id):
    masked, replaced = chosen & (fate <= 0.8), chosen & (fate > 0.8) & (fate < 0.9)
    inputs = torch.where(masked, torch.full_like(tokens, mask_id), tokens)
    return torch.where(replaced, other, inputs), tokens.masked_fill(~chosen, -100)


def q2_chosen_overwritten(tokens, chosen, fate, other, mask_id):
    found = _corrupt(tokens, chosen, fate, other, mask_id)
    chosen.zero_()
    return found


def q2_in_place(tokens, chosen, fate, other, mask_id):
    inputs, targets = _corrupt(tokens, chosen, fate, other, mask_id)
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


# ----------------------------------------------------------------------------- q4: sentence vectors


def _unit(x):
    return x / x.norm(dim=-1, keepdim=True)


def _mean(hidden, mask):
    return (hidden * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)


def q4_as_given(hidden, mask):
    mean = hidden.mean(1)
    return mean / mean.norm(dim=0, keepdim=True)


def q4_padding_in_the_mean(hidden, mask):
    return _unit(hidden.mean(1))


def q4_norm_over_the_batch(hidden, mask):
    mean = _mean(hidden, mask)
    return mean / mean.norm(dim=0, keepdim=True)


def q4_not_normalized(hidden, mask):
    return _mean(hidden, mask)


def q4_first_token(hidden, mask):
    return _unit(hidden[:, 0])


def q4_largest_entry(hidden, mask):
    return _unit(hidden.masked_fill(~mask[..., None], -torch.inf).amax(1))


def q4_tokens_normalized_first(hidden, mask):
    return _unit(_mean(_unit(hidden), mask))


def q4_one_norm_for_all(hidden, mask):
    mean = _mean(hidden, mask)
    return mean / mean.norm()


def q4_first_n_tokens(hidden, mask):
    n = mask.sum(1)
    return _unit(torch.stack([h[:k].mean(0) for h, k in zip(hidden, n, strict=True)]))


def q4_mask_the_wrong_way_round(hidden, mask):
    return torch.nn.functional.normalize((hidden * ~mask[..., None]).sum(1), dim=-1)


def q4_only_the_divisor_mended(hidden, mask):
    return _unit(hidden.sum(1) / mask.sum(1, keepdim=True))


def q4_in_place(hidden, mask):
    hidden *= mask[..., None]
    return _unit(hidden.sum(1))


# --------------------------------------------------------------------- q5: precision, recall, F1


def _counts(targets, predictions, k):
    hits = int(((targets == k) & (predictions == k)).sum())
    return hits, int((predictions == k).sum()), int((targets == k).sum())


def _classes(targets, predictions, n):
    out = []
    for k in range(n):
        hits, called, there = _counts(targets, predictions, k)
        p, r = hits / called if called else 0.0, hits / there if there else 0.0
        out.append((p, r, 2 * hits / (called + there) if called + there else 0.0, there))
    return out


def q5_swapped(targets, predictions, n_classes):
    rows = _classes(predictions, targets, n_classes)
    return tuple(sum(row[i] for row in rows) / n_classes for i in range(3))


def q5_micro(targets, predictions, n_classes):
    share = float((targets == predictions).double().mean())
    return share, share, share


def q5_weighted(targets, predictions, n_classes):
    rows = _classes(targets, predictions, n_classes)
    return tuple(sum(row[i] * row[3] for row in rows) / len(targets) for i in range(3))


def q5_f1_of_the_means(targets, predictions, n_classes):
    rows = _classes(targets, predictions, n_classes)
    p, r = (sum(row[i] for row in rows) / n_classes for i in range(2))
    return p, r, 2 * p * r / (p + r)


def q5_arithmetic_mean(targets, predictions, n_classes):
    rows = _classes(targets, predictions, n_classes)
    p, r = (sum(row[i] for row in rows) / n_classes for i in range(2))
    return p, r, (p + r) / 2


def q5_divides_by_zero(targets, predictions, n_classes):
    rows = []
    for k in range(n_classes):
        hits, called, there = _counts(targets, predictions, k)
        rows.append((hits / called, hits / there, 2 * hits / (called + there)))
    return tuple(sum(row[i] for row in rows) / n_classes for i in range(3))


def q5_nan(targets, predictions, n_classes):
    rows = []
    for k in range(n_classes):
        hits, called, there = (torch.tensor(float(c)) for c in _counts(targets, predictions, k))
        rows.append((hits / called, hits / there, 2 * hits / (called + there)))
    return tuple(float(sum(row[i].double() for row in rows)) / n_classes for i in range(3))


def q5_skips_missing_classes(targets, predictions, n_classes):
    rows = [r for r in _classes(targets, predictions, n_classes) if r[3]]
    return tuple(sum(row[i] for row in rows) / len(rows) for i in range(3))


def q5_tensors(targets, predictions, n_classes):
    rows = _classes(targets, predictions, n_classes)
    return tuple(torch.tensor(sum(r[i] for r in rows) / n_classes).double() for i in range(3))


# ------------------------------------------------------------------------- q6: tags on word pieces


def _align(words, tags, encode, cls_id, sep_id, rest):
    ids, labels = [cls_id], [-100]
    for word, tag in zip(words, tags, strict=True):
        found = list(encode(word))
        ids += found
        labels += rest(tag, len(found)) if found else []
    return [*ids, sep_id], [*labels, -100]


def q6_tag_on_every_piece(words, tags, encode, cls_id, sep_id):
    return _align(words, tags, encode, cls_id, sep_id, lambda tag, n: [tag] * n)


def q6_tag_on_the_last_piece(words, tags, encode, cls_id, sep_id):
    return _align(words, tags, encode, cls_id, sep_id, lambda tag, n: [-100] * (n - 1) + [tag])


def q6_zero_for_the_rest(words, tags, encode, cls_id, sep_id):
    return _align(words, tags, encode, cls_id, sep_id, lambda tag, n: [tag] + [0] * (n - 1))


def q6_specials_tagged(words, tags, encode, cls_id, sep_id):
    ids, labels = _align(
        words, tags, encode, cls_id, sep_id, lambda tag, n: [tag] + [-100] * (n - 1)
    )
    return ids, [0, *labels[1:-1], 0]


def q6_no_specials(words, tags, encode, cls_id, sep_id):
    ids, labels = _align(
        words, tags, encode, cls_id, sep_id, lambda tag, n: [tag] + [-100] * (n - 1)
    )
    return ids[1:-1], labels[1:-1]


def q6_one_label_a_word(words, tags, encode, cls_id, sep_id):
    ids = [cls_id, *(i for word in words for i in encode(word)), sep_id]
    return ids, [-100, *tags, -100]


def q6_empty_words_leave_labels(words, tags, encode, cls_id, sep_id):
    ids, labels = [cls_id], [-100]
    for word, tag in zip(words, tags, strict=True):
        found = list(encode(word))
        ids += found
        labels += [tag] + [-100] * (len(found) - 1)
    return [*ids, sep_id], [*labels, -100]


def _first(tag, n):
    return [tag] + [-100] * (n - 1)


def q6_words_not_asked_are_dropped(words, tags, encode, cls_id, sep_id):
    kept = [(word, tag) for word, tag in zip(words, tags, strict=True) if tag != -100]
    return _align(
        [word for word, _ in kept], [tag for _, tag in kept], encode, cls_id, sep_id, _first
    )


def q6_tag_by_index(words, tags, encode, cls_id, sep_id):
    tags = [tags[words.index(word)] for word in words]
    return _align(words, tags, encode, cls_id, sep_id, _first)


def q6_tag_by_dictionary(words, tags, encode, cls_id, sep_id):
    by_word = dict(zip(words, tags, strict=True))
    return _align(words, [by_word[word] for word in words], encode, cls_id, sep_id, _first)


def q6_usual_special_ids(words, tags, encode, cls_id, sep_id):
    return _align(words, tags, encode, 101, 102, _first)


def q6_whole_sentence_at_once(words, tags, encode, cls_id, sep_id):
    return [cls_id, *encode(" ".join(words)), sep_id], [-100, *tags, -100]


def q6_zero_spreads(words, tags, encode, cls_id, sep_id):
    def rest(tag, n):
        return [tag] + [-100 if tag else 0] * (n - 1)

    return _align(words, tags, encode, cls_id, sep_id, rest)


def q6_tags_move_on(words, tags, encode, cls_id, sep_id):
    ids, labels, left = [cls_id], [-100], iter(tags)
    for word in words:
        found = list(encode(word))
        if found:
            ids += found
            labels += [next(left)] + [-100] * (len(found) - 1)
    return [*ids, sep_id], [*labels, -100]
