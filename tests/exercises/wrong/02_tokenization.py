"""Wrong answers to exercises/02_tokenization: each is a mistake people make, and each must fail."""

import math
from collections import Counter

from minillm.tokenizers import CL100K, GPT2

# ------------------------------------------------------------------------- q1: predict two merges


def _q1(first=("a", "b"), second=("a", "a"), n_tokens=18):
    return {"first": first, "second": second, "n_tokens": n_tokens}


def q1_ignores_how_often_words_occur():
    return _q1(first=("a", "a"))


def q1_loses_the_tie():
    return _q1(second=("a", "ab"))


def q1_repeats_the_new_token():
    return _q1(second=("ab", "ab"))


def q1_counts_letters():
    return _q1(n_tokens=32)


def q1_one_merge_only():
    return _q1(n_tokens=22)


def q1_counts_each_word_once():
    return _q1(n_tokens=6)


def q1_joined_text():
    return _q1(first="ab", second="aa")


# ---------------------------------------------------------------------------- q2: learn the merges


def _learn(
    counts, n_merges, *, weigh=True, tie=min, recount=True, overlap=True, once=False, stop=True
):
    words, merges, pairs = {word: list(word) for word in counts}, [], None
    while len(merges) < n_merges:
        if pairs is None or recount:
            pairs = Counter()
            for word, tokens in words.items():
                found = list(zip(tokens, tokens[1:], strict=False))
                for pair in found if overlap else set(found):
                    pairs[pair] += counts[word] if weigh else 1
        else:
            pairs.pop(merges[-1])
        if not pairs and stop:
            break
        most = max(pairs.values())
        best = tie(pair for pair, n in pairs.items() if n == most)
        merges.append(best)
        words = {word: _replace(tokens, best, once) for word, tokens in words.items()}
    return merges


def _replace(tokens, pair, once):
    out, i, done = [], 0, False
    while i < len(tokens):
        if tuple(tokens[i : i + 2]) == pair and not (once and done):
            out.append(pair[0] + pair[1])
            i, done = i + 2, True
        else:
            out.append(tokens[i])
            i += 1
    return out


def q2_ignores_frequency(counts, n_merges):
    return _learn(counts, n_merges, weigh=False)


def q2_last_of_a_tie(counts, n_merges):
    return _learn(counts, n_merges, tie=max)


def q2_stale_counts(counts, n_merges):
    return _learn(counts, n_merges, recount=False)


def q2_pair_counted_once_a_word(counts, n_merges):
    return _learn(counts, n_merges, overlap=False)


def q2_replaces_only_the_first(counts, n_merges):
    return _learn(counts, n_merges, once=True)


def q2_replaces_in_a_joined_string(counts, n_merges):
    words, merges = {word: " ".join(word) for word in counts}, []
    for _ in range(n_merges):
        pairs = Counter()
        for word, spaced in words.items():
            tokens = spaced.split()
            for pair in zip(tokens, tokens[1:], strict=False):
                pairs[pair] += counts[word]
        if not pairs:
            break
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        for word, spaced in words.items():
            words[word] = spaced.replace(" ".join(best), "".join(best))
    return merges


def q2_never_stops(counts, n_merges):
    return _learn(counts, n_merges, stop=False)


def q2_returns_tokens(counts, n_merges):
    return ["".join(pair) for pair in _learn(counts, n_merges)]


def q2_first_met_of_a_tie(counts, n_merges):
    return _learn(counts, n_merges, tie=next)


def q2_starts_from_bytes(counts, n_merges):
    return _learn({word.encode().decode("latin-1"): n for word, n in counts.items()}, n_merges)


def q2_lower_case(counts, n_merges):
    return _learn({word.lower(): n for word, n in counts.items()}, n_merges)


def q2_at_least_one_merge(counts, n_merges):
    return _learn(counts, max(n_merges, 1))


def q2_empties_its_input(counts, n_merges):
    merges = _learn(counts, n_merges)
    counts.clear()
    return merges


# ---------------------------------------------------------------------- q3: the most probable cut


def _table(word, log_p, *, better=None, missing=-math.inf, start=0.0, weigh=None):
    best = [start] + [-math.inf] * len(word)
    came_from = [0] * (len(word) + 1)
    for j in range(1, len(word) + 1):
        for i in range(j):
            piece = word[i:j]
            score = log_p.get(piece, missing)
            score = best[i] + (weigh(piece, score) if weigh else score)
            if score > best[j] if better is None else better(score, best[j]):
                best[j], came_from[j] = score, i
    if best[-1] == -math.inf:
        return None
    pieces, j = [], len(word)
    while j > 0:
        pieces.append(word[came_from[j] : j])
        j = came_from[j]
    return pieces[::-1]


def q3_longest_first(word, log_p):
    pieces = []
    while word:
        found = [n for n in range(len(word), 0, -1) if word[:n] in log_p]
        if not found:
            return None
        pieces.append(word[: found[0]])
        word = word[found[0] :]
    return pieces


def q3_most_probable_next_piece(word, log_p):
    pieces = []
    while word:
        found = [word[:n] for n in range(1, len(word) + 1) if word[:n] in log_p]
        if not found:
            return None
        pieces.append(max(found, key=log_p.get))
        word = word[len(pieces[-1]) :]
    return pieces


def q3_fewest_pieces(word, log_p):
    return _table(word, log_p, weigh=lambda piece, score: -1.0 if piece in log_p else -math.inf)


def q3_smallest_sum(word, log_p):
    flipped = {piece: -score for piece, score in log_p.items()}
    return _table(word, flipped)


def q3_multiplies_probabilities_of_one_letter_twice(word, log_p):
    return _table(word, log_p, weigh=lambda piece, score: score * len(piece))


def q3_mean_in_place_of_sum(word, log_p):
    return _table(word, log_p, weigh=lambda piece, score: score / len(piece))


def q3_zero_is_no_piece(word, log_p):
    return _table(word, {piece: score for piece, score in log_p.items() if score})


def q3_unknown_letters_are_pieces(word, log_p):
    return _table(word, log_p, missing=-1e3)


def q3_pieces_backwards(word, log_p):
    pieces = _table(word, log_p)
    return pieces and pieces[::-1]


def q3_lists_every_cut(word, log_p):
    ways = [[]] if not word else []
    for n in range(1, len(word) + 1):
        if word[:n] in log_p and (rest := q3_lists_every_cut(word[n:], log_p)) is not None:
            ways.append([word[:n], *rest])
    return max(ways, key=lambda way: sum(map(log_p.get, way)), default=None)


def q3_multiplies_probabilities(word, log_p):
    best = [1.0] + [0.0] * len(word)
    came_from = [0] * (len(word) + 1)
    for j in range(1, len(word) + 1):
        for i in range(j):
            p = best[i] * math.exp(log_p.get(word[i:j], -math.inf))
            if p > best[j]:
                best[j], came_from[j] = p, i
    if word and best[-1] == 0:
        return None
    pieces, j = [], len(word)
    while j > 0:
        pieces.append(word[came_from[j] : j])
        j = came_from[j]
    return pieces[::-1]


def q3_pieces_of_at_most_sixteen_letters(word, log_p):
    return _table(word, {piece: score for piece, score in log_p.items() if len(piece) <= 16})


def q3_minus_a_hundred_for_infinity(word, log_p):
    pieces = _table(word, log_p)
    return pieces and (None if sum(map(log_p.get, pieces)) < -100 else pieces)


def q3_fills_in_missing_letters(word, log_p):
    for letter in word:
        log_p.setdefault(letter, -math.inf)
    return _table(word, log_p)


# -------------------------------------------------------------------------------- q4: the stream


def q4_unchanged(tokens):
    for token in tokens:
        if text := token.decode("utf-8", errors="ignore"):
            yield text


def q4_shows_broken_characters(tokens):
    for token in tokens:
        yield token.decode("utf-8", errors="replace")


def q4_waits_for_the_end(tokens):
    yield b"".join(tokens).decode("utf-8", errors="replace")


def q4_holds_back_what_is_certain(tokens):
    waiting = b""
    for token in tokens:
        waiting += token
        try:
            text = waiting.decode("utf-8")
        except UnicodeDecodeError:
            continue
        waiting = b""
        yield text
    if waiting:
        yield waiting.decode("utf-8", errors="replace")


def q4_forgets_the_rest(tokens):
    import codecs

    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    for token in tokens:
        if text := decoder.decode(token):
            yield text


def q4_one_sign_for_each_byte(tokens):
    import codecs

    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    for token in tokens:
        if text := decoder.decode(token):
            yield text
    yield "\ufffd" * len(decoder.getstate()[0])


def q4_yields_empty_strings(tokens):
    import codecs

    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    for token in tokens:
        yield decoder.decode(token)
    yield decoder.decode(b"", final=True)


def q4_repeats_everything(tokens):
    waiting = b""
    for token in tokens:
        waiting += token
        if text := waiting.decode("utf-8", errors="ignore"):
            yield text


def _decoded(tokens, codec="utf-8"):
    import codecs

    decoder = codecs.getincrementaldecoder(codec)(errors="replace")
    for token in tokens:
        if text := decoder.decode(token):
            yield text
    if text := decoder.decode(b"", final=True):
        yield text


def q4_waits_while_the_text_ends_in_a_replacement(tokens):
    waiting = b""
    for token in tokens:
        waiting += token
        text = waiting.decode("utf-8", errors="replace").rstrip("\ufffd")
        waiting = waiting[len(text.encode()) :]
        if text:
            yield text
    if waiting:
        yield "\ufffd"


def q4_stops_at_an_empty_token(tokens):
    yield from _decoded(iter(lambda: next(tokens, b""), b""))


def q4_drops_a_byte_order_mark(tokens):
    yield from _decoded(tokens, "utf-8-sig")


def q4_takes_all_tokens_first(tokens):
    yield from _decoded(list(tokens))


# ------------------------------------------------------------------------------ q5: compression


def q5_characters(tokenizer, texts):
    return sum(map(len, texts)) / sum(len(tokenizer.encode(text)) for text in texts)


def q5_tokens_per_byte(tokenizer, texts):
    return sum(len(tokenizer.encode(text)) for text in texts) / sum(
        len(text.encode()) for text in texts
    )


def q5_mean_of_ratios(tokenizer, texts):
    ratios = [len(text.encode()) / len(tokenizer.encode(text)) for text in texts if text]
    return sum(ratios) / len(ratios)


def q5_joined(tokenizer, texts):
    text = "".join(texts)
    return len(text.encode()) / len(tokenizer.encode(text))


def q5_joined_with_newlines(tokenizer, texts):
    text = "\n".join(texts)
    return len(text.encode()) / len(tokenizer.encode(text))


def q5_counts_tokens_of_joined_lines(tokenizer, texts):
    return sum(len(text.encode()) for text in texts) / len(tokenizer.encode("\n".join(texts)))


def q5_distinct_tokens(tokenizer, texts):
    ids = [i for text in texts for i in tokenizer.encode(text)]
    return sum(len(text.encode()) for text in texts) / len(set(ids))


def q5_each_text_once(tokenizer, texts):
    return sum(len(text.encode()) for text in set(texts)) / sum(
        len(tokenizer.encode(text)) for text in set(texts)
    )


def q5_strips_blanks(tokenizer, texts):
    texts = [text.strip() for text in texts]
    return sum(len(t.encode()) for t in texts) / sum(len(tokenizer.encode(t)) for t in texts)


def q5_skips_empty_texts(tokenizer, texts):
    texts = [text for text in texts if text]
    return sum(len(t.encode()) for t in texts) / sum(len(tokenizer.encode(t)) for t in texts)


def q5_rounded(tokenizer, texts):
    n_bytes = sum(len(text.encode()) for text in texts)
    return round(n_bytes / sum(len(tokenizer.encode(text)) for text in texts), 2)


def q5_empties_its_input(tokenizer, texts):
    n_bytes, n_tokens = 0, 0
    while texts:
        text = texts.pop()
        n_bytes, n_tokens = n_bytes + len(text.encode()), n_tokens + len(tokenizer.encode(text))
    return n_bytes / n_tokens


def q5_formatted(tokenizer, texts):
    n_bytes = sum(len(text.encode()) for text in texts)
    return f"{n_bytes / sum(len(tokenizer.encode(text)) for text in texts):.2f}"


# ------------------------------------------------------------------------------ q6: digits


def q6_unchanged():
    return CL100K


def q6_no_groups():
    return CL100K.replace(r"\p{N}{1,3}", r"\p{N}+")


def q6_single_digits():
    return CL100K.replace(r"\p{N}{1,3}", r"\p{N}")


def q6_end_of_text_instead_of_end_of_run():
    return CL100K.replace(r"\p{N}{1,3}", r"\p{N}{1,3}(?=(?:\p{N}{3})*$)|\p{N}{1,3}")


def q6_word_border_instead_of_end_of_run():
    return CL100K.replace(r"\p{N}{1,3}", r"\p{N}{1,3}(?=(?:\p{N}{3})*\b)|\p{N}{1,3}")


def q6_ascii_digits():
    return CL100K.replace(r"\p{N}{1,3}", r"[0-9]{1,3}(?=(?:[0-9]{3})*(?![0-9]))|\p{N}{1,3}")


def q6_from_gpt2():
    return GPT2.replace(r" ?\p{N}++", r" ?\p{N}{1,3}(?=(?:\p{N}{3})*(?!\p{N}))")


def q6_a_blank_joins():
    return CL100K.replace(r"\p{N}{1,3}", r" ?\p{N}{1,3}(?=(?:\p{N}{3})*(?!\p{N}))")


def q6_a_sign_joins():
    return CL100K.replace(r"\p{N}{1,3}", r"-?\p{N}{1,3}(?=(?:\p{N}{3})*(?!\p{N}))")


def q6_at_most_twelve_digits():
    return CL100K.replace(r"\p{N}{1,3}", r"\p{N}{1,3}(?=(?:\p{N}{3}){0,3}(?!\p{N}))")


def q6_leaves_the_last_group_out():
    return CL100K.replace(r"\p{N}{1,3}", r"\p{N}{1,3}(?=(?:\p{N}{3})+(?!\p{N}))")


def q6_takes_three_without_giving_back():
    return CL100K.replace(r"\p{N}{1,3}", r"\p{N}{1,3}+(?=(?:\p{N}{3})*(?!\p{N}))")


def q6_no_end_of_the_run():
    return CL100K.replace(r"\p{N}{1,3}", r"\p{N}{1,3}(?=(?:\p{N}{3})*)")
