from otter.test_files import test_case

OK_FORMAT = False

name = "q2_mask"
points = 3

@test_case(points=None, hidden=False)
def test_pair_by_pair(glm_mask):
    import torch
    context = torch.tensor([3, 5, 2])
    given = context.clone()
    mask = glm_mask(given, 7)
    assert mask is not None, 'glm_mask returned nothing: is the `return` missing?'
    assert torch.equal(given, context), 'your function changed its input: leave context as it is'
    assert isinstance(mask, torch.Tensor), f'return a tensor, not a {type(mask).__name__}'
    assert tuple(mask.shape) == (3, 7, 7), f'three rows of 7 tokens need a mask (3, 7, 7), not {tuple(mask.shape)}'
    assert mask.dtype == torch.bool, f'the mask must be boolean, not {mask.dtype}: a comparison gives that by itself'
    for row, a in enumerate(context.tolist()):
        part_b = mask[row, a:, a:]
        assert not mask[row, :a, a:].any(), 'part A sees part B: that is where the answers are'
        assert mask[row, :a, :a].all(), 'part A must see all of itself, also what comes later'
        assert mask[row, a:, :a].all(), 'every token of part B sees all of part A'
        assert part_b.diagonal().all(), 'a token of part B must see itself, too: the comparison is <=, not <'
        assert not part_b.triu(1).any(), 'a token of part B sees later tokens of part B'
        assert part_b.tril().sum() == part_b.shape[0] * (part_b.shape[0] + 1) // 2, 'part B must see what is earlier in B'

@test_case(points=None, hidden=False)
def test_special_cases(glm_mask):
    import torch
    nothing, everything = (torch.tensor([0, 0]), torch.tensor([5]))
    assert torch.equal(glm_mask(nothing, 5)[1], torch.ones(5, 5).tril().bool()), 'with context 0 the mask is causal'
    assert glm_mask(everything, 5).all(), 'with all five tokens in part A nothing is hidden'
    assert tuple(glm_mask(torch.tensor([1]), 1).shape) == (1, 1, 1), 'one row of one token needs a mask (1, 1, 1)'

@test_case(points=None, hidden=True)
def test_other_sizes(glm_mask):
    import torch
    for t in (1, 2, 6, 11):
        context = torch.arange(t + 1)
        mask = glm_mask(context, t)
        right = torch.tensor([[[j < a or j <= i for j in range(t)] for i in range(t)] for a in range(t + 1)])
        assert torch.equal(mask, right), f'wrong for {t} tokens and context 0 to {t}: compare pair by pair'

