from otter.test_files import test_case

OK_FORMAT = False

name = "q2_causal_mask"
points = 2

@test_case(points=None, hidden=False)
def test_square(causal_mask):
    import torch
    mask = causal_mask(3, 3)
    assert isinstance(mask, torch.Tensor) and mask.shape == (3, 3), 'return a tensor of shape (t, s)'
    assert mask.dtype == torch.bool, 'the mask must be boolean; call .bool() or compare with <='
    assert not mask.all(), 'everything is visible: a token must not look at later ones'
    assert mask.diagonal().all(), 'a token may look at itself: use <=, not <'
    assert mask[2, 0], 'row = query, column = key: the last token may look at the first one'
    assert mask.tolist() == [[True, False, False], [True, True, False], [True, True, True]], 'expected the lower triangle'

@test_case(points=None, hidden=False)
def test_new_tokens(causal_mask):
    import torch
    mask = causal_mask(2, 5)
    assert tuple(mask.shape) == (2, 5), 'return a tensor of shape (t, s)'
    assert mask[-1].all(), 'the last token comes after all others and sees them all: align the triangle to the bottom right'
    assert mask.tolist() == [[True] * 4 + [False], [True] * 5], 'query i is token s - t + i, not token i'

@test_case(points=None, hidden=True)
def test_every_pair(causal_mask):
    for t, s in [(1, 1), (1, 7), (4, 4), (3, 7), (6, 7)]:
        mask = causal_mask(t, s)
        assert tuple(mask.shape) == (t, s), f'for t={t}, s={s} the shape must be ({t}, {s})'
        for i in range(t):
            for j in range(s):
                assert bool(mask[i, j]) == (j <= s - t + i), f'wrong at query {i}, key {j} for t={t}, s={s}: it is token {s - t + i}'

