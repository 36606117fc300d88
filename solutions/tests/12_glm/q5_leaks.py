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
    assert {(j, i) for i, j in found} != one_more, 'pairs are (the output that moves, the token that was changed)'
    assert found == one_more, f'part A reaches one token too far here: outputs 0, 1, 2 notice token 3; you found {sorted(found)}'
    everything = {(i, j) for j in range(3, 7) for i in range(j)}
    found = leaks(with_context(7), tokens.clone(), 3)
    assert found == everything, f'with no mask at all there are {len(everything)} leaks, and you found {len(found)}'
    assert leaks(with_context(2), tokens.clone(), 3) == set(), 'a part A that is too short loses something, but leaks nothing'

@test_case(points=None, hidden=False)
def test_small_leaks(leaks):
    import torch

    def run(tokens):
        out = torch.stack([tokens.double(), tokens.double().cumsum(0)], dim=1)
        out[1, 0] += 1e-13 * tokens[5]
        return out
    found = leaks(run, torch.tensor([1, 2, 0, 4, 3, 9, 7]), 2)
    assert found != set(), 'a leak of 1e-13 was overlooked: compare bit by bit, without a tolerance'
    assert found == {(1, 5)}, f'output 1 notices token 5 and nothing else leaks; you found {sorted(found)}'

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

