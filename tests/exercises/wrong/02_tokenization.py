"""Wrong answers to exercises/02_tokenization: each is a mistake people make, and each must fail."""

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


# ------------------------------------------------------------------------------ q3: encode by rank


def q3_longest_first(word, merges):
    tokens = set(word) | {left + right for left, right in merges}
    out = []
    while word:
        size = max(n for n in range(1, len(word) + 1) if word[:n] in tokens)
        out.append(word[:size])
        word = word[size:]
    return out


def q3_left_to_right(word, merges):
    tokens, i = list(word), 0
    known = set(map(tuple, merges))
    while i < len(tokens) - 1:
        if (tokens[i], tokens[i + 1]) in known:
            tokens[i : i + 2] = [tokens[i] + tokens[i + 1]]
            i = 0
        else:
            i += 1
    return tokens


def q3_latest_merge_first(word, merges):
    rank = {tuple(pair): i for i, pair in enumerate(merges)}
    tokens = list(word)
    while True:
        found = [i for i in range(len(tokens) - 1) if (tokens[i], tokens[i + 1]) in rank]
        if not found:
            return tokens
        i = max(found, key=lambda i: rank[tokens[i], tokens[i + 1]])
        tokens[i : i + 2] = [tokens[i] + tokens[i + 1]]


def q3_each_merge_once(word, merges):
    tokens = list(word)
    for left, right in merges:
        for i in range(len(tokens) - 1):
            if (tokens[i], tokens[i + 1]) == (left, right):
                tokens[i : i + 2] = [left + right]
                break
    return tokens


def q3_one_pass(word, merges):
    tokens = list(word)
    for pair in merges:
        tokens = _replace(tokens, tuple(pair), once=False)
    return tokens


def q3_rightmost_first(word, merges):
    rank = {tuple(pair): i for i, pair in enumerate(merges)}
    tokens = list(word)
    while True:
        found = [
            (rank[tokens[i], tokens[i + 1]], -i)
            for i in range(len(tokens) - 1)
            if (tokens[i], tokens[i + 1]) in rank
        ]
        if not found:
            return tokens
        i = -min(found)[1]
        tokens[i : i + 2] = [tokens[i] + tokens[i + 1]]


def q3_letters_only(word, merges):
    return list(word)


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
