from otter.test_files import test_case

OK_FORMAT = False

name = "q2_corrupt"
points = 3

@test_case(points=None, hidden=False)
def test_against_a_loop(corrupt_words):
    import torch
    g = torch.Generator().manual_seed(0)
    tokens, other = torch.randint(5, 90, (2, 7, 31), generator=g)
    begins, chosen = torch.rand(2, 7, 31, generator=g) < 0.5
    begins[:, 0] = True
    fate = torch.rand(7, 31, generator=g)
    given = [x.clone() for x in (tokens, begins, chosen, fate, other)]
    answer = corrupt_words(*given, 4)
    assert isinstance(answer, (tuple, list)) and len(answer) == 2, 'return two tensors: inputs, targets'
    inputs, targets = answer
    assert torch.equal(given[0], tokens), 'your function changed `tokens`: make a new tensor'
    assert all(map(torch.equal, given, (tokens, begins, chosen, fate, other))), 'your function changed what it was given'
    assert inputs.shape == tokens.shape and targets.shape == tokens.shape, 'both have the shape of tokens'
    assert inputs.dtype == targets.dtype == tokens.dtype, f'tokens are {tokens.dtype}; you return {inputs.dtype} and {targets.dtype}'
    wanted, goal = (tokens.clone(), torch.full_like(tokens, -100))
    kind = torch.zeros_like(tokens)
    for b in range(7):
        for t in range(31):
            first = t if begins[b, t] else first
            if chosen[b, first]:
                goal[b, t] = tokens[b, t]
                kind[b, t] = 1 if fate[b, first] < 0.8 else 2 if fate[b, first] < 0.9 else 3
                wanted[b, t] = 4 if kind[b, t] == 1 else other[b, t] if kind[b, t] == 2 else tokens[b, t]
    later = ~begins
    assert (targets[later & (kind > 0)] != -100).all(), 'all pieces of a chosen word are targets: its first piece decides for them'
    assert (targets[later & (kind == 0)] == -100).all(), '`chosen` at a later piece does not count: the first piece decides'
    assert not (targets[kind == 3] == -100).all(), 'a kept token is a target, too: the model cannot know that it was kept'
    assert not (targets[kind == 2] == other[kind == 2]).all(), 'the target is the old token, not what stands there now'
    assert (targets[kind == 0] == -100).all(), 'only pieces of chosen words have a target; elsewhere it is -100'
    assert torch.equal(targets, goal), 'the targets differ from those of a loop over all places'
    assert (inputs[kind == 0] == tokens[kind == 0]).all(), 'a piece of a word that was not chosen has changed'
    assert (inputs[kind == 1] == 4).all(), "where the first piece's fate is below 0.8 every piece of the word becomes mask_id"
    assert not (inputs[kind == 3] == 4).all(), 'from 0.9 on the word stays, and is not masked'
    assert not (inputs[kind == 3] == other[kind == 3]).all(), '10% are replaced, from 0.8 to below 0.9: the last 10% stay'
    assert not (inputs[kind == 2] == tokens[kind == 2]).all(), 'from 0.8 to below 0.9 the tokens of `other` take the place'
    assert not (inputs[kind == 2] == 4).all(), 'from 0.8 to below 0.9 the word is replaced by tokens of `other`, not masked'
    assert (inputs[begins & (kind == 2)] == other[begins & (kind == 2)]).all(), 'a replaced piece is the token of `other` at its place'
    assert (inputs[later & (kind == 2)] == other[later & (kind == 2)]).all(), "each piece of a replaced word gets the token that `other` has at its own place, and all share the first piece's fate"
    assert torch.equal(inputs, wanted), 'the inputs differ from those of a loop over all places'

@test_case(points=None, hidden=False)
def test_on_the_line(corrupt_words):
    import torch
    tokens, other = (torch.arange(11, 19)[None], torch.arange(21, 29)[None])
    fate = torch.tensor([[0.79, 0.95, 0.8, 0.1, 0.895, 0.9, 0.1, 0.1]], dtype=torch.float64)
    begins = torch.tensor([[True, False, True, False, True, True, False, True]])
    chosen = torch.tensor([[True, False, True, False, True, True, False, False]])
    for mask_id in (3, 8):
        inputs, targets = (part.tolist()[0] for part in corrupt_words(tokens, begins, chosen, fate, other, mask_id))
        assert inputs[:2] == [mask_id] * 2, f'mask_id is {mask_id} here, and {inputs[:2]} stand where a word of two pieces is masked'
        assert inputs[2:4] == [23, 24], 'at exactly 0.8 tokens of `other` take the place of both pieces'
        assert inputs[4] == 25, 'at 0.895, still below 0.9, the token of `other` takes the place'
        assert inputs[5:] == [16, 17, 18], 'from exactly 0.9 on the word stays, and so does one that was not chosen'
        assert targets == [11, 12, 13, 14, 15, 16, 17, -100], 'targets are the old tokens at all pieces of chosen words'

