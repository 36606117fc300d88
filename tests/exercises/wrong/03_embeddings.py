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
