from otter.test_files import test_case

OK_FORMAT = False

name = "q4_pool"
points = 3

@test_case(points=None, hidden=False)
def test_vectors(sentence_vectors):
    import torch
    g = torch.Generator().manual_seed(0)
    hidden = torch.randn(3, 7, 5, generator=g, dtype=torch.float64)
    mask = torch.arange(7) < torch.tensor([[7], [4], [1]])
    given, given_mask = (hidden.clone(), mask.clone())
    out = sentence_vectors(given, given_mask)
    assert out is not None and tuple(out.shape) == (3, 5), 'one vector of width 5 for each of the three texts is wanted'
    assert torch.equal(given, hidden) and torch.equal(given_mask, mask), 'your function changed its input'
    right = torch.stack([h[m].mean(0) for h, m in zip(hidden, mask)])
    inverse = torch.stack([h[~m].sum(0) for h, m in zip(hidden, mask)])[1:]
    assert not torch.allclose(out[1:], inverse / inverse.norm(dim=-1, keepdim=True)), 'True in the mask marks the *real* tokens'
    lengths = out.norm(dim=-1)
    not_unit = (lengths - 1).abs().max() > 1e-06
    assert not torch.allclose(out, right), 'the vectors must have length 1: divide by the norm'
    assert not not_unit, f'the vectors have lengths {[round(v, 2) for v in lengths.tolist()]}: the norm is taken over the last axis'
    wrong = hidden.mean(1)
    assert not torch.allclose(out, wrong / wrong.norm(dim=-1, keepdim=True)), 'padding is in the mean: only tokens where mask is True count'
    first = hidden[:, 0]
    assert not torch.allclose(out, first / first.norm(dim=-1, keepdim=True)), 'that is the first token alone; the mean of all real tokens is wanted'
    biggest = hidden.masked_fill(~mask[..., None], -torch.inf).amax(1)
    assert not torch.allclose(out, biggest / biggest.norm(dim=-1, keepdim=True)), 'that is the largest entry over the tokens, not the mean'
    each = torch.stack([(h / h.norm(dim=-1, keepdim=True))[m].mean(0) for h, m in zip(hidden, mask)])
    assert not torch.allclose(out, each / each.norm(dim=-1, keepdim=True)), 'normalize once, at the end: not every token before the mean'
    right = right / right.norm(dim=-1, keepdim=True)
    gap = (out - right).abs().max().item()
    assert gap < 1e-09, f"differs by {gap:.2g} from the mean of each text's own tokens, brought to length 1"

@test_case(points=None, hidden=False)
def test_padding_does_not_matter(sentence_vectors):
    import torch
    g = torch.Generator().manual_seed(1)
    hidden = torch.randn(2, 9, 6, generator=g)
    mask = torch.ones(2, 9).bool()
    mask[0, :4] = False
    alone = sentence_vectors(hidden[:1, 4:], mask[:1, 4:])
    together = sentence_vectors(hidden, mask)[:1]
    assert torch.allclose(alone, together, atol=1e-05), 'a text alone and the same text padded (on the left, too) must get one vector'
    other = hidden.masked_fill(~mask[..., None], 1000000.0)
    assert torch.allclose(sentence_vectors(other, mask), sentence_vectors(hidden, mask), atol=1e-05), 'what stands at padding must not matter'

