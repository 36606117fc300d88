from otter.test_files import test_case

OK_FORMAT = False

name = "q5_leaks"
points = 4

@test_case(points=None, hidden=False)
def test_an_honest_model(leaks):
    import torch
    from minillm.models.glm import glm
    torch.manual_seed(0)
    model = glm(vocab_size=10, max_seq_len=16, d_model=16, n_layers=2, n_heads=2).double().eval()

    def run(tokens):
        assert 0 <= int(tokens.min()) and int(tokens.max()) <= 9, 'you ran the model on an id outside 0 to 9'
        with torch.no_grad():
            return model(tokens[None], context=torch.tensor([3]))[0]
    tokens = torch.tensor([4, 0, 9, 9, 1, 5, 2])
    given = tokens.clone()
    found = leaks(run, given, 3)
    assert found is not None, 'leaks returned nothing: is the `return` missing?'
    assert torch.equal(given, tokens), 'your function changed the tokens: clone them first'
    assert isinstance(found, set), f'return a set of pairs, not a {type(found).__name__}'
    assert not any((i == j for i, j in found)), 'a token may notice itself: that is no leak'
    assert not any((j < 3 for i, j in found)), 'every token may notice all of part A, also what comes later in it'
    assert not any((j < i for i, j in found)), 'later tokens may notice earlier ones: that is no leak'
    assert found == set(), f'an honest model has no leaks, and yours finds {sorted(found)[:4]}'

@test_case(points=None, hidden=False)
def test_models_that_leak(leaks):
    import torch
    from minillm.models.glm import glm
    torch.manual_seed(1)
    model = glm(vocab_size=10, max_seq_len=16, d_model=16, n_layers=2, n_heads=2).double().eval()
    tokens = torch.tensor([4, 0, 9, 9, 1, 5, 2])

    def with_context(n):

        def run(tokens):
            with torch.no_grad():
                return model(tokens[None], context=torch.tensor([n]))[0]
        return run
    one_more = {(i, 3) for i in range(3)}
    found = leaks(with_context(4), tokens.clone(), 3)
    assert all((type(n) is int for pair in found for n in pair)), 'return pairs of ints: two tensors with one value are two members of a set (`int(i)` or `.tolist()` helps)'
    assert {(j, i) for i, j in found} != one_more, 'pairs are (the output that moves, the token that was changed)'
    assert found == one_more, f'part A reaches one token too far here: outputs 0, 1, 2 notice token 3; you found {sorted(found)}'
    everything = {(i, j) for j in range(3, 7) for i in range(j)}
    found = leaks(with_context(7), tokens.clone(), 3)
    assert found == everything, f'with no mask at all there are {len(everything)} leaks, and you found {len(found)}'
    assert leaks(with_context(2), tokens.clone(), 3) == set(), 'a part A that is too short loses something, but leaks nothing'

@test_case(points=None, hidden=False)
def test_every_id(leaks):
    import torch

    def run(tokens):
        assert 0 <= int(tokens.min()) and int(tokens.max()) <= 9, 'you ran the model on an id outside 0 to 9'
        x = tokens.double()
        return torch.stack([x.cumsum(0), x.flip(0).cumsum(0).flip(0)], dim=1)
    tokens = torch.tensor([4, 4, 4, 9, 0, 5, 7, 2, 1, 8, 3, 6, 4])
    right = {(i, j) for j in range(3, 13) for i in range(j)}
    missed = sorted({int(tokens[j]) for _, j in right - leaks(run, tokens.clone(), 3)})
    assert not missed, f'everything leaks here, and tokens with the ids {missed} seem not to: were they changed into another id?'
    found = leaks(run, tokens.clone(), 3)
    assert found == right, f'{sorted(found - right)} are no leaks'
    assert leaks(run, tokens.clone(), 13) == set(), 'with all 13 tokens in part A everybody may notice everybody'

@test_case(points=None, hidden=False)
def test_small_leaks(leaks):
    import torch

    def run(tokens):
        x = tokens.double()
        out = torch.stack([x, x.cumsum(0), torch.ones_like(x), -x, x.cumsum(0)], dim=1)
        out[1, 2] += 1e-13 * x[5]
        out[0, 1] += x[2]
        out[0, 4] -= x[2]
        return out
    found = leaks(run, torch.tensor([1, 2, 0, 4, 3, 9, 7]), 2)
    assert found != set(), 'two leaks were overlooked: compare every number of a row, with part A as long as `context` says'
    assert (1, 5) in found, 'a leak of 1e-13 in one number was overlooked: compare all numbers bit by bit, without a tolerance'
    assert (0, 2) in found, 'output 0 notices token 2, the first of part B here (context 2), in two of its numbers: compare each number by itself'
    assert found == {(1, 5), (0, 2)}, f'output 1 notices token 5, output 0 token 2, and nothing else leaks; you found {sorted(found)}'

@test_case(points=None, hidden=True)
def test_any_output(leaks):
    import torch

    def run(tokens):
        n = len(tokens)
        out = torch.zeros(n, 4, dtype=torch.float64)
        out[:, 0] = tokens.double().cumsum(0)
        out[0, 3] = float(tokens[n - 1] == 9) - float(tokens[n - 1] == 0)
        out[2, 1] = float(tokens[4])
        return out
    for last in (9, 0, 8):
        tokens = torch.tensor([3, 1, 4, 1, 5, 9, 2, last])
        found = leaks(run, tokens, 3)
        right = {(2, 4), (0, 7)}
        assert found <= right, f'you found {sorted(found - right)}, which may notice each other'
        assert (2, 4) in found, 'output 2 notices token 4 in its second number: look at all numbers of a row'
        if last != 8:
            assert found == right, 'output 0 notices the last token in its last number: look at all tokens and all numbers'

