from otter.test_files import test_case

OK_FORMAT = False

name = "q2_corrupt"
points = 3

@test_case(points=None, hidden=False)
def test_against_a_loop(corrupt):
    import torch
    g = torch.Generator().manual_seed(0)
    tokens = torch.randint(5, 90, (7, 31), generator=g)
    chosen = torch.rand(7, 31, generator=g) < 0.5
    fate, other = (torch.rand(7, 31, generator=g), torch.randint(5, 90, (7, 31), generator=g))
    given = [x.clone() for x in (tokens, chosen, fate, other)]
    answer = corrupt(*given, 4)
    assert isinstance(answer, (tuple, list)) and len(answer) == 2, 'return two tensors: inputs, targets'
    inputs, targets = answer
    assert torch.equal(given[0], tokens), 'your function changed `tokens`: make a new tensor'
    assert all(map(torch.equal, given, (tokens, chosen, fate, other))), 'your function changed chosen, fate or other'
    assert inputs.shape == tokens.shape and targets.shape == tokens.shape, 'both have the shape of tokens'
    assert inputs.dtype == targets.dtype == tokens.dtype, f'tokens are {tokens.dtype}; you return {inputs.dtype} and {targets.dtype}'
    assert (inputs[~chosen] == tokens[~chosen]).all(), 'a place that was not chosen changed: every condition needs `chosen`'
    wanted, goal = (tokens.clone(), torch.full_like(tokens, -100))
    for b in range(7):
        for t in range(31):
            if chosen[b, t]:
                goal[b, t] = tokens[b, t]
                if fate[b, t] < 0.8:
                    wanted[b, t] = 4
                elif fate[b, t] < 0.9:
                    wanted[b, t] = other[b, t]
    masked, kept = (chosen & (fate < 0.8), chosen & (fate >= 0.9))
    replaced = chosen & ~masked & ~kept
    assert (inputs[masked] == 4).all(), 'below 0.8 the input is mask_id'
    assert not (inputs[kept] == 4).all(), 'from 0.9 on the token stays, and is not masked'
    assert not (inputs[kept] == other[kept]).all(), '10% are replaced, from 0.8 to below 0.9: the last 10% stay'
    assert not (inputs[replaced] == tokens[replaced]).all(), 'from 0.8 to below 0.9 the token of `other` takes the place'
    assert not (inputs[replaced] == 4).all(), 'from 0.8 to below 0.9 the token is replaced by that of `other`, not masked'
    assert torch.equal(inputs, wanted), 'the inputs differ from those of a loop over all places'
    assert not (targets[kept] == -100).all(), 'a kept token is a target, too: the model cannot know that it was kept'
    assert not (targets[replaced] == other[replaced]).all(), 'the target is the old token, not what stands there now'
    assert not (targets[~chosen] != -100).any(), 'only chosen places have a target; elsewhere it is -100'
    assert torch.equal(targets, goal), 'the targets differ from those of a loop over all places'

@test_case(points=None, hidden=False)
def test_on_the_line(corrupt):
    import torch
    tokens, other = (torch.arange(11, 17)[None], torch.arange(21, 27)[None])
    fate = torch.tensor([[0.79, 0.8, 0.895, 0.9, 0.95, 0.1]], dtype=torch.float64)
    chosen = torch.tensor([[True, True, True, True, True, False]])
    for mask_id in (3, 8):
        inputs, targets = (part.tolist()[0] for part in corrupt(tokens, chosen, fate, other, mask_id))
        assert inputs[0] == mask_id, f'mask_id is {mask_id} here, and {inputs[0]} stands at a masked place'
        assert inputs[1] == 22, 'at exactly 0.8 the token of `other` takes the place'
        assert inputs[2] == 23, 'at 0.895, still below 0.9, the token of `other` takes the place'
        assert inputs[3:] == [14, 15, 16], 'from exactly 0.9 on the token stays, and so does one that was not chosen'
        assert targets == [11, 12, 13, 14, 15, -100], 'targets are the old tokens at the chosen places'

@test_case(points=None, hidden=True)
def test_limits(corrupt):
    import torch
    tokens = torch.tensor([[11, 12, 13, 14]])
    fate, other = (torch.tensor([[0.0, 0.8, 0.9, 0.5]], dtype=torch.float64), torch.tensor([[21, 22, 23, 24]]))
    chosen = torch.tensor([[True, True, True, False]])
    inputs, targets = corrupt(tokens, chosen, fate, other, 0)
    assert inputs.tolist() == [[0, 22, 13, 14]], 'at exactly 0.8 a token is replaced, at exactly 0.9 it stays; mask_id may be 0'
    assert targets.tolist() == [[11, 12, 13, -100]], 'targets are the old tokens at the chosen places'
    nothing = torch.zeros_like(chosen)
    inputs, targets = corrupt(tokens, nothing, fate, other, 0)
    assert torch.equal(inputs, tokens) and (targets == -100).all(), 'where nothing is chosen nothing changes'

