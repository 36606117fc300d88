"""Wrong answers to exercises/03_embeddings: each is a mistake people make, and each must fail."""

import math

import torch
import torch.nn.functional as F

# -------------------------------------------------------------------------- q1: count the work


def _q1(skip_gram_predictions=14, cbow_predictions=5, multiplications=4900):
    return {
        "skip_gram_predictions": skip_gram_predictions,
        "cbow_predictions": cbow_predictions,
        "multiplications": multiplications,
    }


def q1_no_ends():
    return _q1(skip_gram_predictions=20)


def q1_swapped():
    return _q1(skip_gram_predictions=5, cbow_predictions=14)


def q1_pairs_once():
    return _q1(skip_gram_predictions=7)


def q1_cbow_as_many():
    return _q1(cbow_predictions=14)


def q1_noise_only():
    return _q1(multiplications=14 * 6 * 50)


def q1_dot_product_is_one():
    return _q1(multiplications=14 * 7)


def q1_one_draw_a_center():
    return _q1(multiplications=5 * 7 * 50)


# ----------------------------------------------------------------------------------- q2: pairs


def _sentences(stream):
    found = [[]]
    for word in stream:
        if word < 0:
            found.append([])
        else:
            found[-1].append(word)
    return found


def _pairs(sentence, window):
    n = len(sentence)
    return [
        (sentence[i], sentence[j])
        for i in range(n)
        for j in range(n)
        if i != j and abs(i - j) <= window
    ]


def q2_crosses_sentences(stream, window):
    return _pairs([w for w in stream if w >= 0], window)


def q2_break_is_a_word(stream, window):
    return _pairs(stream, window)


def q2_only_to_the_right(stream, window):
    return [
        (s[i], s[j])
        for s in _sentences(stream)
        for i in range(len(s))
        for j in range(i + 1, min(len(s), i + window + 1))
    ]


def q2_drops_equal_words(stream, window):
    return [p for s in _sentences(stream) for p in _pairs(s, window) if p[0] != p[1]]


def q2_itself_too(stream, window):
    return [
        (s[i], s[j])
        for s in _sentences(stream)
        for i in range(len(s))
        for j in range(max(0, i - window), min(len(s), i + window + 1))
    ]


def q2_one_place_short(stream, window):
    return [p for s in _sentences(stream) for p in _pairs(s, max(1, window - 1))]


def q2_forgets_the_last_sentence(stream, window):
    return [p for s in _sentences(stream)[:-1] for p in _pairs(s, window)]


def q2_context_first(stream, window):
    return [(b, a) for s in _sentences(stream) for a, b in _pairs(s, window)]


def q2_window_reaches_across(stream, window):
    """-1 itself is left out, the words behind it are not."""
    places = range(len(stream))
    near = [(i, j) for i in places for j in places if i != j and abs(i - j) <= window]
    return [(stream[i], stream[j]) for i, j in near if stream[i] >= 0 and stream[j] >= 0]


def q2_window_of_two_at_most(stream, window):
    return [p for s in _sentences(stream) for p in _pairs(s, min(window, 2))]


def q2_zero_is_no_word(stream, window):
    return [p for s in _sentences(stream) for p in _pairs(s, window) if all(p)]


def q2_stops_at_an_empty_sentence(stream, window):
    found = []
    for sentence in _sentences(stream):
        if not sentence:
            break
        found += _pairs(sentence, window)
    return found


def q2_near_words_first(stream, window):
    found = []
    for s in _sentences(stream):
        for i, center in enumerate(s):
            for k in range(1, window + 1):
                found += [(center, s[j]) for j in (i - k, i + k) if 0 <= j < len(s)]
    return found


def q2_empties_the_stream(stream, window):
    found = []
    while stream:
        end = stream.index(-1) if -1 in stream else len(stream)
        found += _pairs(stream[:end], window)
        del stream[: end + 1]
    return found


def q2_appends_a_break(stream, window):
    stream.append(-1)
    return [p for s in _sentences(stream) for p in _pairs(s, window)]


def q2_pairs_are_lists(stream, window):
    return [list(p) for s in _sentences(stream) for p in _pairs(s, window)]


# ---------------------------------------------------------------------- q3: negative sampling


def _scores(h, u, noise):
    return (h * u).sum(-1), (h[:, None] * noise).sum(-1)


def q3_noise_called_true(h, u, noise):
    true, false = _scores(h, u, noise)
    return -F.logsigmoid(true) - F.logsigmoid(false).sum(-1)


def q3_mean_of_noise(h, u, noise):
    true, false = _scores(h, u, noise)
    return -F.logsigmoid(true) - F.logsigmoid(-false).mean(-1)


def q3_sign(h, u, noise):
    true, false = _scores(h, u, noise)
    return F.logsigmoid(true) + F.logsigmoid(-false).sum(-1)


def q3_overflows(h, u, noise):
    true, false = _scores(h, u, noise)
    return -true.sigmoid().log() - (1 - false.sigmoid()).log().sum(-1)


def q3_clipped(h, u, noise):
    true, false = _scores(h, u, noise)
    small = 1e-9
    return -(true.sigmoid() + small).log() - (1 - false.sigmoid() + small).log().sum(-1)


def q3_no_noise(h, u, noise):
    return -F.logsigmoid((h * u).sum(-1))


def q3_mean_of_all(h, u, noise):
    true, false = _scores(h, u, noise)
    return (-F.logsigmoid(true) - F.logsigmoid(-false).sum(-1)).mean()


def q3_scores_clipped(h, u, noise):
    true, false = (z.clamp(-88, 88) for z in _scores(h, u, noise))
    return -F.logsigmoid(true) - F.logsigmoid(-false).sum(-1)


def q3_detached_result(h, u, noise):
    true, false = _scores(h, u, noise)
    return (-F.logsigmoid(true) - F.logsigmoid(-false).sum(-1)).detach()


def q3_noise_detached(h, u, noise):
    true, false = _scores(h, u, noise.detach())
    return -F.logsigmoid(true) - F.logsigmoid(-false).sum(-1)


def q3_true_word_detached(h, u, noise):
    true, false = _scores(h, u.detach(), noise)
    return -F.logsigmoid(true) - F.logsigmoid(-false).sum(-1)


def q3_always_64_bits(h, u, noise):
    true, false = _scores(h.double(), u.double(), noise.double())
    return -F.logsigmoid(true) - F.logsigmoid(-false).sum(-1)


def q3_always_32_bits(h, u, noise):
    true, false = _scores(h.float(), u.float(), noise.float())
    return (-F.logsigmoid(true) - F.logsigmoid(-false).sum(-1)).to(h.dtype)


def q3_squeezed(h, u, noise):
    true, false = _scores(h, u, noise)
    return (-F.logsigmoid(true) - F.logsigmoid(-false).sum(-1)).squeeze()


def q3_softmax(h, u, noise):
    true, false = _scores(h, u, noise)
    return -torch.cat([true[:, None], false], 1).log_softmax(1)[:, 0]


def q3_noise_of_the_whole_batch(h, u, noise):
    false = h @ noise.flatten(0, 1).mT
    return -F.logsigmoid((h * u).sum(-1)) - F.logsigmoid(-false).sum(-1)


def q3_borrowed(h, u, noise):
    from minillm.models.word2vec import negative_sampling_loss as borrowed

    return borrowed(h, u, noise)


# ------------------------------------------------------------------------------ q4: walk down


def _walk(h, nodes, paths, first=1.0, last=-1.0):
    z = nodes @ h
    return torch.stack(
        [sum(F.logsigmoid(z[n] * (first if b == 0 else last)) for n, b in p) for p in paths]
    )


def q4_bits_swapped(h, nodes, paths):
    return _walk(h, nodes, paths, -1.0, 1.0)


def q4_bit_one_is_no_decision(h, nodes, paths):
    return _walk(h, nodes, paths, 1.0, 1.0)


def q4_probabilities(h, nodes, paths):
    return _walk(h, nodes, paths).exp()


def q4_sign(h, nodes, paths):
    return -_walk(h, nodes, paths)


def q4_last_node_only(h, nodes, paths):
    return _walk(h, nodes, [path[-1:] for path in paths])


def q4_logarithm_of_a_product(h, nodes, paths):
    return _walk(h, nodes, paths).exp().log()


def q4_no_gradient(h, nodes, paths):
    return _walk(h, nodes, paths).detach()


def q4_clipped(h, nodes, paths):
    return _walk(h, nodes, paths).clamp(min=-100)


def q4_logarithm_of_sigmoid(h, nodes, paths):
    p = torch.sigmoid(nodes @ h)
    return torch.stack([sum((p[n] if b == 0 else 1 - p[n]).log() for n, b in q) for q in paths])


def q4_small_number_in_the_logarithm(h, nodes, paths):
    p = torch.sigmoid(nodes @ h)
    terms = [[(p[n] if b == 0 else 1 - p[n]) + 1e-12 for n, b in path] for path in paths]
    return torch.stack([sum(x.log() for x in path) for path in terms])


def q4_place_instead_of_node(h, nodes, paths):
    return _walk(h, nodes, [[(i, b) for i, (_, b) in enumerate(path)] for path in paths])


def q4_nodes_detached(h, nodes, paths):
    return _walk(h, nodes.detach(), paths)


def q4_h_detached(h, nodes, paths):
    return _walk(h.detach(), nodes, paths)


def q4_always_32_bits(h, nodes, paths):
    return _walk(h.float(), nodes.float(), paths)


def q4_numbers_not_tensors(h, nodes, paths):
    return torch.tensor(_walk(h, nodes, paths).tolist())


def q4_empties_the_paths(h, nodes, paths):
    found = _walk(h, nodes, paths)
    for path in paths:
        path.clear()
    return found


def q4_mean_along_the_path(h, nodes, paths):
    return _walk(h, nodes, paths) / torch.tensor([len(path) for path in paths])


# ------------------------------------------------------------------------------- q5: the bugs


def _solve(rows, query, exclude):
    scores = rows @ query
    scores[exclude] = -math.inf
    return scores.argmax().item()


def q5_as_it_was(vectors, a, b, c):
    return _solve(vectors, vectors[b] - vectors[a] + vectors[c], [c])


def q5_lengths_of_candidates(vectors, a, b, c):
    rows = F.normalize(vectors, dim=1)
    return _solve(vectors, rows[b] - rows[a] + rows[c], [a, b, c])


def q5_lengths_of_the_question(vectors, a, b, c):
    return _solve(F.normalize(vectors, dim=1), vectors[b] - vectors[a] + vectors[c], [a, b, c])


def q5_admits_b(vectors, a, b, c):
    rows = F.normalize(vectors, dim=1)
    return _solve(rows, rows[b] - rows[a] + rows[c], [c])


def q5_swapped(vectors, a, b, c):
    rows = F.normalize(vectors, dim=1)
    return _solve(rows, rows[a] - rows[b] + rows[c], [a, b, c])


def q5_normalizes_in_place(vectors, a, b, c):
    rows = vectors.div_(vectors.norm(dim=1, keepdim=True))
    return _solve(rows, rows[b] - rows[a] + rows[c], [a, b, c])


def q5_a_tensor(vectors, a, b, c):
    rows = F.normalize(vectors, dim=1)
    return torch.tensor(_solve(rows, rows[b] - rows[a] + rows[c], [a, b, c]))


def q5_admits_a(vectors, a, b, c):
    rows = F.normalize(vectors, dim=1)
    return _solve(rows, rows[b] - rows[a] + rows[c], [b, c])


def _excluded_by(score):
    def solve(vectors, a, b, c):
        rows = F.normalize(vectors, dim=1)
        scores = rows @ (rows[b] - rows[a] + rows[c])
        scores[[a, b, c]] = score
        return scores.argmax().item()

    return solve


q5_excluded_by_zero = _excluded_by(0.0)
q5_excluded_by_minus_one = _excluded_by(-1.0)


def q5_subtracts_one(vectors, a, b, c):
    rows = F.normalize(vectors, dim=1)
    scores = rows @ (rows[b] - rows[a] + rows[c])
    scores[[a, b, c]] -= 1
    return scores.argmax().item()


def q5_near_c_only(vectors, a, b, c):
    rows = F.normalize(vectors, dim=1)
    return _solve(rows, rows[c], [a, b, c])


def q5_removed_rows_shift_the_answer(vectors, a, b, c):
    rows = F.normalize(vectors, dim=1)
    keep = [i for i in range(len(rows)) if i not in (a, b, c)]
    return _solve(rows[keep], rows[b] - rows[a] + rows[c], [])


def q5_columns_normalized(vectors, a, b, c):
    rows = F.normalize(vectors, dim=0)
    return _solve(rows, rows[b] - rows[a] + rows[c], [a, b, c])
