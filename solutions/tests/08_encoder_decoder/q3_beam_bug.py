from otter.test_files import test_case

OK_FORMAT = False

name = "q3_beam_bug"
points = 3

@test_case(points=None, hidden=False)
def test_by_hand(best_sequences):
    import math
    table = {(): [0.6, 0.4, 0.0], (0,): [0.35, 0.35, 0.3], (1,): [0.05, 0.05, 0.9]}

    def log_probs(prefix):
        return [math.log(p) if p else -1000000000.0 for p in table.get(prefix, [0.3, 0.3, 0.4])]
    greedy = best_sequences(log_probs, 1, 2, 2)
    assert isinstance(greedy, list) and len(greedy) == 1, f'return a list with at most `width`, here 1, tuples, not {greedy}'
    assert isinstance(greedy[0], tuple), f'each sequence is a tuple of ids, not {greedy[0]}'
    assert tuple(greedy[0])[:1] == (0,), 'greedy, the first token is 0 with probability 0.6'
    wide = [tuple(sequence) for sequence in best_sequences(log_probs, 2, 2, 2)]
    assert wide[0] != (0, 0), '0 0 has probability 0.6 x 0.35 = 0.21, but 1 2 has 0.4 x 0.9: does the beam keep both prefixes?'
    assert wide == [(1, 2), (0, 0)], f'with two prefixes the best are (1, 2) with 0.36 and (0, 0) with 0.21, not {wide}'

@test_case(points=None, hidden=False)
def test_nothing_after_the_end(best_sequences):
    import math
    import random
    for seed in range(30):

        def log_probs(prefix, seed=seed):
            generator = random.Random(hash((seed, prefix)))
            weights = [generator.random() ** 3 + 0.001 for _ in range(4)]
            return [math.log(w / sum(weights)) for w in weights]
        for width in (1, 2, 4):
            for found in best_sequences(log_probs, width, 5, 3):
                found = tuple(found)
                assert 3 not in found[:-1], f'{found} goes on after its end token 3: a finished sequence is not extended'
                assert found and len(found) <= 5, f'{found} is longer than `length`, 5'
                assert found[-1] == 3 or len(found) == 5, f'{found} neither ends with `end` nor has the full length'

@test_case(points=None, hidden=False)
def test_brute_force(best_sequences):
    import itertools
    import math
    import random
    vocabulary, length, end = (3, 4, 2)
    for seed in range(40):

        def log_probs(prefix, seed=seed):
            generator = random.Random(hash((seed, prefix)))
            weights = [generator.random() ** 2 + 0.001 for _ in range(vocabulary)]
            return [math.log(w / sum(weights)) for w in weights]

        def total(sequence):
            return sum((log_probs(sequence[:i])[token] for i, token in enumerate(sequence)))
        bodies = [b for n in range(length) for b in itertools.product((0, 1), repeat=n)]
        every = [(*b, end) for b in bodies] + list(itertools.product((0, 1), repeat=length))
        found = [tuple(sequence) for sequence in best_sequences(log_probs, vocabulary ** length, length, end)]
        assert set(found) <= set(every), f'{(set(found) - set(every)).pop()} is no sequence that ends with {end} or has {length} tokens'
        assert len(found) == len(every), f'a beam that holds every prefix finds all {len(every)} sequences, yours {len(found)}: are finished ones kept to the end?'
        best = max(every, key=total)
        assert found[0] == best or abs(total(found[0]) - total(best)) < 1e-09, f'a beam that holds every prefix puts {found[0]} first, but {best} is likelier: is a sequence judged by all its tokens, or by the last one?'
        assert found == sorted(every, key=lambda sequence: -total(sequence)), 'the best first: sort by the sum over all tokens'

@test_case(points=None, hidden=False)
def test_the_beam_keeps_its_width(best_sequences):
    import math

    def search(table, width):
        found = best_sequences(lambda prefix: [math.log(p) for p in table.get(prefix, [0.3, 0.3, 0.4])], width, 3, 2)
        return [tuple(sequence) for sequence in found]
    found = search({(): [0.3, 0.25, 0.45], (0,): [0.4, 0.3, 0.3], (1,): [0.05, 0.9, 0.05], (1, 1): [0.98, 0.01, 0.01]}, 2)
    assert len(found) <= 2, f'{len(found)} sequences from a beam of 2: return the likeliest `width` of the finished ones'
    assert found == [(2,), (1, 1, 0)], f'(2,) ends in the first step, and *two* prefixes go on, (0,) and (1,): so (2,) with 0.45 and (1, 1, 0) with 0.22 are found, not {found}. Take those that have not ended out of *all* candidates, and of them the best `width`'
    found = search({(): [0.4, 0.28, 0.32], (0,): [0.9, 0.02, 0.08], (1,): [0.1, 0.1, 0.8], (0, 0): [0.98, 0.01, 0.01]}, 2)
    assert found == [(0, 0, 0), (2,)], f'two sequences have ended after two steps, but the live (0, 0) with 0.36 beats both and leads to (0, 0, 0) with 0.35; you return {found}: `width` finished ones are no reason to stop, nor to make the beam smaller'
    found = search({(): [0.5, 0.1, 0.4], (0,): [0.7, 0.15, 0.15], (0, 0): [0.7, 0.15, 0.15]}, 1)
    assert found == [(0, 0, 0)], f'with one prefix (2,) is only the second best of the first step: it is not finished, and (0, 0, 0) is found, not {found}; `finished` takes from the best `width`'

@test_case(points=None, hidden=True)
def test_equals_the_library_at_small_widths(best_sequences):
    import torch
    from minillm.generation.search import beam_search
    from minillm.models.encdec import Conditioned, EncDecConfig, EncoderDecoder
    for seed in range(4):
        torch.manual_seed(seed)
        model = EncoderDecoder(EncDecConfig(6, 12, d_model=8, n_layers=1, n_heads=2)).double().eval()
        with torch.no_grad():
            for p in model.parameters():
                p += 0.5 * torch.randn_like(p)
            memory = model.remember(model.encode(torch.tensor([[3, 4, 5]])))

        def log_probs(prefix):
            with torch.no_grad():
                return model.decode(torch.tensor([[1, *prefix]]), memory, last_only=True)[0, 0].log_softmax(-1).tolist()
        for width in (1, 2, 3):
            options = {'width': width, 'max_new_tokens': 6, 'eos_id': 2}
            right = beam_search(Conditioned(model, memory), torch.tensor([[1]]), **options)[0][0].tokens
            found = tuple(best_sequences(log_probs, width, 6, 2)[0])
            assert found == right, f'width {width}: {found} instead of {right}: which candidates stay?'

