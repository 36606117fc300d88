from otter.test_files import test_case

OK_FORMAT = False

name = "q6_align"
points = 3

@test_case(points=None, hidden=False)
def test_a_sentence(align):
    pieces = {'in': [7], 'warsaw': [30, 31], 'curie': [40, 41, 42], 'sang': [9]}
    words, tags = (['in', 'warsaw', 'curie', 'sang'], [0, 1, 2, 0])

    def encode(word):
        assert word in pieces, f'encode takes one word at a time, and got {word!r}'
        return list(pieces[word])
    answer = align(list(words), list(tags), encode, 101, 102)
    assert answer is not None and len(answer) == 2, 'return two lists: ids, labels'
    ids, labels = (list(part) for part in answer)
    assert len(ids) == len(labels), f'{len(ids)} ids and {len(labels)} labels: every piece needs a label, -100 if it has none'
    assert ids[:1] == [101] and ids[-1:] == [102], 'the row begins with cls_id and ends with sep_id'
    assert ids == [101, 7, 30, 31, 40, 41, 42, 9, 102], 'all pieces of all words, in order, between the special tokens'
    assert labels[0] == -100 and labels[-1] == -100, 'the special tokens have no tag: -100'
    assert labels != [-100, 0, 1, 1, 2, 2, 2, 0, -100], 'only the first piece of a word carries its tag; the others get -100'
    assert labels != [-100, 0, -100, 1, -100, -100, 2, 0, -100], 'the tag belongs to the *first* piece of a word, not the last'
    assert labels != [-100, 0, 1, 0, 2, 0, 0, 0, -100], 'the other pieces get -100, which means not asked; 0 is a tag like any other'
    assert labels == [-100, 0, 1, -100, 2, -100, -100, 0, -100], f'the labels are {labels}; the tag of each word at its first piece is wanted'

@test_case(points=None, hidden=False)
def test_a_word_twice(align):
    pieces = {'warsaw': [30, 31], 'sang': [9, 10]}
    ids, labels = align(['warsaw', 'sang', 'warsaw'], [1, -100, 0], lambda w: list(pieces[w]), 101, 102)
    ids, labels = (list(ids), list(labels))
    assert ids == [101, 30, 31, 9, 10, 30, 31, 102], f'ids are {ids}: a word whose tag is -100 is read like the others, it is only not asked for'
    assert len(labels) == 8, 'every piece needs a label, also those of a word whose tag is -100'
    assert (labels[1], labels[5]) == (1, 0), 'a word that comes twice has two tags: take the tag at its place, do not look it up by the word'
    assert labels == [-100, 1, -100, -100, -100, 0, -100, -100], f'the labels are {labels}: -100 at all but first pieces, also where the tag is 0'

@test_case(points=None, hidden=False)
def test_words_without_pieces(align):
    pieces = {'a': [5], '\x00': [], 'b': [6, 7]}
    words, tags = (['a', '\x00', 'b', '\x00'], [2, 1, 3, 1])
    given_words, given_tags = (list(words), list(tags))
    ids, labels = align(given_words, given_tags, lambda w: list(pieces[w]), 1, 2)
    assert (ids[0], ids[-1]) == (1, 2), 'cls_id is 1 and sep_id 2 here: use what is handed in'
    assert len(ids) == len(labels), 'a word without pieces left a label behind: the lists no longer agree'
    assert list(ids) == [1, 5, 6, 7, 2], 'a word without pieces adds nothing to the ids'
    assert list(labels) == [-100, 2, 3, -100, -100], 'a word without pieces takes its tag with it: the next word keeps its own'
    assert (given_words, given_tags) == (words, tags), 'your function changed its input'
    ids, labels = align([], [], lambda w: [], 8, 9)
    assert (list(ids), list(labels)) == ([8, 9], [-100, -100]), 'a sentence without words is the two special tokens'

@test_case(points=None, hidden=True)
def test_random_sentences(align):
    import random
    rng = random.Random(0)
    for _ in range(200):
        n = rng.randrange(12)
        pieces = {i: [rng.randrange(5, 99) for _ in range(rng.choice([0, 1, 1, 2, 5]))] for i in range(n)}
        tags = [rng.choice([-100, 0, 1, 2, 7]) for _ in range(n)]
        ids, labels = align(list(range(n)), tags, lambda w: pieces[w], 3, 4)
        wanted = [-100] * (2 + sum(map(len, pieces.values())))
        place = 1
        for i in range(n):
            if pieces[i]:
                wanted[place] = tags[i]
            place += len(pieces[i])
        assert list(ids) == [3, *(x for i in range(n) for x in pieces[i]), 4], 'ids are all pieces in order'
        assert list(labels) == wanted, 'labels stand at the first piece of each word; a tag of -100 stays -100'

