import torch

from minillm.models.llama import LlamaConfig
from minillm.models.llama_gguf import HeadsInPairs
from minillm.nn import rotate_halves, rotate_pairs


def test_scores_are_the_same_in_pairs_and_in_halves():
    torch.manual_seed(0)
    config, layout = LlamaConfig(9, 9, 8, 1, 2), HeadsInPairs("n_heads")
    query, key = torch.randn(2, 8, 5, dtype=torch.float64)
    (theirs_q,), (theirs_k,) = ((layout.join((weight,), config),) for weight in (query, key))
    assert torch.equal(layout.split(theirs_q, config)[0], query)
    assert not torch.equal(theirs_q, query)
    x, angle = torch.randn(1, 3, 5, dtype=torch.float64), torch.randn(1, 3, 2, dtype=torch.float64)

    def scores(q, k, rotate):
        heads = [(x @ w.T).view(1, 3, 2, 4).transpose(1, 2) for w in (q, k)]
        turned = [rotate(head, angle.cos(), angle.sin()) for head in heads]
        return turned[0] @ turned[1].mT

    ours = scores(query, key, rotate_halves)
    torch.testing.assert_close(scores(theirs_q, theirs_k, rotate_pairs), ours)
    assert (scores(query, key, rotate_pairs) - ours).abs().max() > 1e-3, "the order matters"
