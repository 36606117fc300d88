from otter.test_files import test_case

OK_FORMAT = False

name = "q2_causal_mask"
points = 2

@test_case(points=None, hidden=False)
def test_square(causal_mask):
    import torch
    mask = causal_mask(3, 3)
    assert isinstance(mask, torch.Tensor) and mask.shape == (3, 3), 'return a tensor of shape (t, s)'
    assert mask.dtype == torch.bool, 'the mask must be boolean; call .bool() or compare positions'
    right = torch.tensor([[True, False, False], [True, True, False], [True, True, True]])
    assert not mask.all(), 'everything is visible: a token must not look at later ones'
    assert not torch.equal(mask, ~right), 'inverted: True must mean that the query may look at the key'
    assert not torch.equal(mask, right.T), 'row = query, column = key: the last token may look at the first one'
    assert mask.diagonal().all(), 'a token must be able to look at itself, too'
    assert torch.equal(mask, right), 'three tokens and three keys: expected the lower triangle with its diagonal'

@test_case(points=None, hidden=False)
def test_new_tokens(causal_mask):
    mask = causal_mask(2, 5)
    assert tuple(mask.shape) == (2, 5), 'return a tensor of shape (t, s)'
    right = [[True] * 4 + [False], [True] * 5]
    inverted = [[not x for x in row] for row in right]
    assert mask.tolist() != inverted, 'inverted: True must mean that the query may look at the key'
    assert mask.tolist() != [[True] * 3 + [False] * 2, [True] * 4 + [False]], 'a token must be able to look at itself, too'
    assert mask.tolist() != [[True] + [False] * 4, [True] * 2 + [False] * 3], 'the new tokens are the last ones of the sequence, and this mask treats them as the first'
    assert mask.tolist() == right, 'which token of the whole sequence is query i? It sees itself and all before it'

