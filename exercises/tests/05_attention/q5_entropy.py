from otter.test_files import test_case

OK_FORMAT = False

name = "q5_entropy"
points = 3

@test_case(points=None, hidden=False)
def test_known_cases(mean_entropy):
    import math
    import torch
    q, k = (torch.zeros(3, 4), torch.randn(8, 4))
    even = float(mean_entropy(q, k, 1.0))
    assert abs(even - 3) > 0.001, '3 is the entropy in bits: use the natural logarithm, not log2'
    assert abs(even - math.log(8) / 8) > 0.0001, 'sum over the keys, then take the mean over the queries: not the mean over both'
    assert abs(even - 3 * math.log(8)) > 0.001, 'take the mean over the queries, not the sum'
    assert even > 0, 'entropy is not negative: mind the minus sign'
    assert abs(even - math.log(3)) > 0.001, 'the softmax must run over the keys, the last axis'
    assert abs(even - math.log(8)) < 1e-05, f'equal scores for 8 keys give entropy ln 8 = 2.0794, not {even:.4f}'

@test_case(points=None, hidden=False)
def test_saturated(mean_entropy):
    import torch
    k = torch.eye(4)
    result = float(mean_entropy(1000 * torch.eye(4)[:3], k, 1.0))
    assert result == result, 'NaN: a weight rounded to 0, and 0 * log(0) is NaN; take log_softmax instead'
    assert abs(result) < 0.001, f'when one key takes everything the entropy is 0, not {result:.4f}'
    half = float(mean_entropy(1000 * torch.eye(4)[:3], k, 0.0))
    assert abs(half - 1.3863) < 0.001, 'with scale 0 all 4 keys count alike, ln 4 = 1.3863: multiply the scores by `scale`'

@test_case(points=None, hidden=False)
def test_oracle(mean_entropy):
    import torch
    torch.manual_seed(0)
    q, k = (torch.randn(7, 5, dtype=torch.float64), torch.randn(11, 5, dtype=torch.float64))
    for scale in (0.3, 1.0, 4.0):
        right = torch.distributions.Categorical(logits=q @ k.T * scale).entropy().mean().item()
        gap = abs(float(mean_entropy(q, k, scale)) - right)
        assert gap < 1e-09, f"differs from torch's entropy by {gap:.2g} at scale {scale}: scale the scores, sum over keys, mean over queries"

@test_case(points=None, hidden=False)
def test_fraction_left(fraction_left):
    import torch
    share = float(fraction_left)
    assert abs(share - 0.89) > 0.03, 'that is what is left *with* the scale 1/16: the question asks for scale=1.0'
    assert abs(share - 0.265) > 0.03, 'that looks like nats: divide by the largest possible entropy, ln 64'
    assert abs(share - 0.064) < 0.015, f'about 0.064 of the entropy is left without a scale at p = 256, you have {share:.3f}'

