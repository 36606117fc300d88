from otter.test_files import test_case

OK_FORMAT = False

name = "q6_write_text"
points = 3

@test_case(points=None, hidden=False)
def test_counts_up(write_text):
    import torch

    def next_one(tokens):
        assert len(tokens) >= 1, 'the model was asked without any token: it needs the prompt'
        return torch.nn.functional.one_hot(torch.tensor((tokens[-1] + 1) % 10), 10).double()
    prompt, generator = ([3, 4], torch.Generator().manual_seed(0))
    out = write_text(next_one, prompt, 4, 9, 8, generator)
    assert isinstance(out, list), 'return a list of whole numbers'
    assert prompt == [3, 4], 'the list you were given has changed: work on a copy'
    assert out != [5, 6, 7, 8], 'the prompt belongs to the result'
    assert out != [3, 4, 5, 5, 5, 5], 'every step must see the tokens that were just written'
    assert out != [3, 4, 5, 6, 7], 'one token is missing: n_tokens new ones were asked for'
    assert out != [3, 4, 5, 6], 'n_tokens counts the new tokens, not those of the prompt'
    assert out == [3, 4, 5, 6, 7, 8], f'after [3, 4] a model that counts up writes 5, 6, 7, 8; you returned {out}'
    out = write_text(next_one, [5], 9, 8, 8, generator)
    assert out != [5, 6, 7, 8], 'the end token itself does not belong to the result'
    assert out != [5, 6, 7, 8, 9, 0, 1, 2, 3, 4], 'writing goes on behind the end token'
    assert out != [5, 6, 7, 9, 0, 1, 2, 3, 4, 5], 'the end token was left out, but writing went on'
    assert out == [5, 6, 7], f'with end = 8, [5] becomes [5, 6, 7]; you returned {out}'
    out = write_text(next_one, [7], 5, 0, 8, generator)
    assert out == [7, 8, 9], f'end may be 0: [7] becomes [7, 8, 9]; you returned {out}'
    out = write_text(next_one, [9, 4, 9], 2, 9, 8, generator)
    assert out == [9, 4, 9, 0, 1], f'end stops the writing when it is *drawn*; in the prompt it is a token like others: [9, 4, 9] becomes [9, 4, 9, 0, 1], you returned {out}'

    def never(tokens):
        raise AssertionError('n_tokens = 0 returns the prompt and asks the model for nothing')
    assert write_text(never, [1, 2], 0, 9, 4, generator) == [1, 2], 'n_tokens = 0 returns the prompt'

@test_case(points=None, hidden=False)
def test_context(write_text):
    import torch
    asked = []

    def watching(tokens):
        asked.append(list(tokens))
        return torch.nn.functional.one_hot(torch.tensor(len(asked) % 7), 8).double()
    out = write_text(watching, [7, 6, 5, 4], 5, 99, 3, torch.Generator().manual_seed(0))
    assert len(asked) == 5, f'the model was asked {len(asked)} times for 5 tokens: once for each'
    assert all((len(tokens) <= 3 for tokens in asked)), f'the model reads at most max_context = 3 tokens and was given {max(map(len, asked))}'
    assert asked[0] != [7, 6, 5], 'give the model the *last* tokens, not the first ones'
    assert asked == [[6, 5, 4], [5, 4, 1], [4, 1, 2], [1, 2, 3], [2, 3, 4]], 'each time the last three tokens of prompt and new text'
    assert out == [7, 6, 5, 4, 1, 2, 3, 4, 5], 'the result keeps the whole prompt, also what the model could no longer see'

@test_case(points=None, hidden=False)
def test_draws(write_text):
    import torch
    p, asked = (torch.tensor([0.5, 0.3, 0.15, 0.05], dtype=torch.float64), [])

    def model(tokens):
        asked.append(tokens)
        return p
    generator, right = (torch.Generator().manual_seed(2), [])
    while 3 not in right:
        right.append(torch.multinomial(p, 1, generator=generator).item())
    n = len(right)
    used = torch.Generator().manual_seed(2)
    out = write_text(model, [1], n + 20, 3, 4, used)
    assert not set(out) <= {0, 1} or set(right) <= {0, 1, 3}, 'always the likeliest tokens: draw from the distribution instead'
    assert all((isinstance(token, int) for token in out)), 'tokens are whole numbers: use .item()'
    assert out[:n] == [1, *right[:n - 1]], "the generator's draws are others: one torch.multinomial(p, 1, generator=generator) for each token"
    assert out == [1, *right[:-1]], 'the end token was left out, but writing went on'
    assert len(asked) == n, f'token {n} drawn was the end, and the model was asked {len(asked)} times: stop there'
    assert torch.equal(used.get_state(), generator.get_state()), 'more was drawn than one token at a time up to the end token'

