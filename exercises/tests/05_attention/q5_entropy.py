from otter.test_files import test_case

OK_FORMAT = False

name = "q5_entropy"
points = 3

@test_case(points=None, hidden=False)
def test_known_cases(mean_entropy):
    import math
    import torch
    q, k = (torch.zeros(3, 4), torch.randn(8, 4))
    even = torch.as_tensor(mean_entropy(q, k, 1.0))
    assert even.numel() == 1, f'one number is wanted, not a tensor of shape {tuple(even.shape)}: take the mean over the queries'
    even = even.item()
    assert even == even, 'NaN: 0 * log(0) is NaN; take log_softmax for the logarithm instead'
    for sign in (1, -1):
        minus = ' (and the minus sign is missing)' if sign < 0 else ''
        assert abs(sign * even - 3) > 0.001, f'3 is the entropy in bits: use the natural logarithm, not log2{minus}'
        assert abs(sign * even - math.log(8) / 8) > 0.0001, f'sum over the keys, then take the mean over the queries: not the mean over both{minus}'
        assert abs(sign * even - 3 * math.log(8)) > 0.001, f'take the mean over the queries, not the sum{minus}'
        assert abs(sign * even - math.log(3)) > 0.001, f'the softmax must run over the keys, the last axis{minus}'
    assert even > 0, 'entropy is not negative: mind the minus sign'
    assert abs(even - math.log(8)) < 1e-05, f'equal scores for 8 keys give entropy ln 8 = 2.0794, not {even:.4f}'

@test_case(points=None, hidden=False)
def test_saturated(mean_entropy):
    import torch
    k = torch.eye(4)
    result = torch.as_tensor(mean_entropy(1000 * torch.eye(4)[:3], k, 1.0)).mean().item()
    assert result == result, 'NaN: a weight rounded to 0, and 0 * log(0) is NaN; take log_softmax instead'
    assert abs(result) < 0.001, f'when one key takes everything the entropy is 0, not {result:.4f}'
    even = torch.as_tensor(mean_entropy(1000 * torch.eye(4)[:3], k, 0.0)).mean().item()
    assert abs(even - 1.3863) < 0.001, 'with scale 0 all 4 keys count alike, ln 4 = 1.3863: multiply the scores by `scale`'

@test_case(points=None, hidden=False)
def test_oracle(mean_entropy):
    import torch
    torch.manual_seed(0)
    q, k = (torch.randn(7, 5, dtype=torch.float64), torch.randn(11, 5, dtype=torch.float64))
    for scale in (0.3, 1.0, 4.0):
        right = torch.distributions.Categorical(logits=q @ k.T * scale).entropy().mean().item()
        before = q.clone()
        mean_entropy(q, k, scale)
        assert torch.equal(q, before), 'you changed q in place: the caller still needs it; compute a new tensor'
        gap = abs(torch.as_tensor(mean_entropy(q, k, scale)).mean().item() - right)
        assert not 1e-09 < gap < 0.0001, f"differs from torch's entropy by {gap:.2g} only: no small number added inside the logarithm, use log_softmax"
        assert gap < 1e-09, f"differs from torch's entropy by {gap:.2g} at scale {scale}: scale the scores, sum over keys, mean over queries"

@test_case(points=None, hidden=False)
def test_fraction_left(fraction_left):
    import math
    import torch
    share = float(fraction_left)
    assert math.isfinite(share), f'{share} is no measurement: mend mean_entropy first, then measure again'
    torch.manual_seed(0)
    draws = [(torch.randn(2000, 256), torch.randn(64, 256)) for _ in range(5)]

    def left(scale):
        found = [torch.distributions.Categorical(logits=q @ k.T * scale).entropy().mean() for q, k in draws]
        return sum(found).item() / len(found) / math.log(64)
    assert 0 <= share, 'entropy is not negative: mind the minus sign'
    assert abs(share - left(1 / 16)) > 0.03, 'that is what is left *with* the scale 1/16: the question asks for scale=1.0'
    assert abs(share - left(1.0) * math.log(64)) > 0.03, 'that looks like nats: divide by the largest possible entropy, ln 64'
    assert abs(share - left(1.0) * math.log(64) / math.log(2)) > 0.03, 'that looks like bits: use nats, and divide by ln 64'
    assert abs(1 - share - left(1.0)) > 0.015, 'that is the fraction which is gone; the question asks for what is left'
    assert abs(share - left(1.0) * math.log(64) / math.log(256)) > 0.006, 'divided by ln 256? The largest entropy belongs to 64 keys of equal weight; 256 is the size of a head'
    assert abs(share - left(1.0)) < 0.008, f'a measurement with q (2000, 256), k (64, 256) and scale=1.0 gives something else than {share:.3f}: check the shapes and the scale, and measure with your function'

