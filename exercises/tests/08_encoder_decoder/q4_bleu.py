from otter.test_files import test_case

OK_FORMAT = False

name = "q4_bleu"
points = 4

@test_case(points=None, hidden=False)
def test_simple(corpus_bleu):
    try:
        perfect, none = (corpus_bleu(['a b c d e'], ['a b c d e']), corpus_bleu(['a b c d x'], ['a q c z y']))
    except (ZeroDivisionError, ValueError) as error:
        raise AssertionError(f'an order without a match makes the score 0.0, it is no error ({error})') from None
    assert abs(perfect - 1) > 1e-09, 'the scale is 0 to 100'
    assert abs(perfect - 100) < 1e-09, f'equal texts score 100, not {perfect}'
    assert none == 0, f'no 2-gram matches, so the score is 0 without smoothing, not {none}'

@test_case(points=None, hidden=False)
def test_clipping_and_brevity(corpus_bleu):
    import math
    long = corpus_bleu(['a b c d e a b c d e'], ['a b c d e'])
    unclipped = 100 * math.exp((0 + math.log(8 / 9) + math.log(6 / 8) + math.log(4 / 7)) / 4)
    assert abs(long - unclipped) > 1e-06, 'an n-gram counts at most as often as the reference has it: clip the counts'
    right = 100 * math.exp((math.log(5 / 10) + math.log(4 / 9) + math.log(3 / 8) + math.log(2 / 7)) / 4)
    assert abs(long - 100) > 1e-06, 'each p is matches over the n-grams of the *hypotheses*: BLEU divides as precision does, not as recall'
    assert abs(long - right) > 0.5 or abs(long - round(long, 2)) > 1e-09, 'do not round: return the number as it is'
    assert abs(long - right) < 1e-06, f'twice the reference: {right:.4f} (no penalty for being long, the geometric mean of four orders), not {long:.4f}'
    short = corpus_bleu(['a b c d e'], ['a b c d e f g h'])
    assert abs(short - 100) > 1e-06, 'too short a hypothesis: the brevity penalty is missing'
    assert abs(short - 100 * math.exp(1 - 8 / 5)) < 1e-06, f"the penalty is exp(1 - r/c) with c the hypotheses' length; expected 54.88, not {short:.2f}"

@test_case(points=None, hidden=False)
def test_corpus(corpus_bleu):
    import random
    from minillm.evaluation.overlap import bleu
    for seed in range(25):
        generator = random.Random(seed)
        refs = [' '.join((generator.choice('abcdefg') for _ in range(generator.randint(5, 14)))) for _ in range(5)]
        hyps = [' '.join((w for w in ref.split() if generator.random() < 0.85)) for ref in refs]
        hyps[0], hyps[1] = (hyps[0] + ' a b c', hyps[1] + ' d e')
        hyps, refs = ([*hyps, hyps[2], hyps[2]], [*refs, refs[2], refs[2]])
        score = corpus_bleu(list(hyps), list(refs))
        right = bleu(hyps, refs, tokenize='none', smoothing='none').score
        each = [bleu([h], [r], tokenize='none', smoothing='none').score for h, r in zip(hyps, refs)]
        once = bleu(hyps[:5], refs[:5], tokenize='none', smoothing='none').score
        assert right == score or abs(score - once) > 1e-06, 'a pair that comes three times counts three times: no set of pairs'
        assert right == score or abs(score - sum(each) / 7) > 1e-06, 'that is the mean of sentence scores: sum matches and lengths over all sentences before dividing'
        assert abs(score - right) < 1e-06, f'corpus BLEU is {right:.4f}, not {score:.4f}: four orders, geometric mean, n-grams clipped within each sentence by their counts, one penalty from the lengths of the whole corpus'

@test_case(points=None, hidden=False)
def test_words_as_they_are(corpus_bleu):
    import sys
    from minillm.evaluation.overlap import bleu
    hyps, refs = (['The cat sat on the mat .', 'A dog ran off . Then it came back .'], ['the cat sat on the Mat .', 'A dog ran off . Then it came home .'])
    kept = (list(hyps), list(refs))

    def right(change):
        return bleu([change(h) for h in hyps], [change(r) for r in refs], tokenize='none', smoothing='none').score
    used, before = (set(), sys.getprofile())
    sys.setprofile(lambda frame, *_: used.add(str(frame.f_globals.get('__name__'))))
    try:
        score = corpus_bleu(hyps, refs)
    finally:
        sys.setprofile(before)
    library = any((name.startswith(('sacrebleu', 'nltk', 'minillm.evaluation')) for name in used))
    assert not library, 'that is the BLEU of a library: write your own'
    assert (hyps, refs) == kept, "your function changed the caller's lists: leave them as they are"
    assert abs(score - right(str.lower)) > 1e-06, 'The and the are two tokens: do not change the case'
    assert abs(score - right(lambda text: text.replace('.', ''))) > 1e-06, 'a period that stands alone is a token: leave the text as it is'
    assert abs(score - right(str)) < 1e-06, f'the score is {right(str):.4f}, not {score:.4f}: tokens are what split() gives, unchanged'

