"""Wrong answers to exercises/06_positions: each is a mistake people make, and each must fail."""

import math

import torch

from minillm.nn import scaled_dot_product_attention
from minillm.nn.rotary import turn

# ---------------------------------------------------- q1: predict a score, turns and parameters


def _q1(**changed):
    right = {
        "score": -3.0,
        "turns": 2048 * 0.01 / (2 * math.pi),
        "learned": 1024 * 768,
        "biases": 32 * 12,
    }
    return right | changed


def q1_sign_of_the_cosine():
    return _q1(score=3.0)


def q1_not_turned():
    return _q1(score=6.0)


def q1_without_lengths():
    return _q1(score=-0.5)


def q1_degrees_as_radians():
    return _q1(score=6 * math.cos(120))


def q1_radians_not_turns():
    return _q1(turns=20.48)


def q1_exponent_without_2():
    return _q1(turns=2048 * 10000 ** (-16 / 64) / (2 * math.pi))


def q1_exponent_positive():
    return _q1(turns=2048 * 100 / (2 * math.pi))


def q1_rows_only():
    return _q1(learned=1024)


def q1_bias_in_every_layer():
    return _q1(biases=32 * 12 * 12)


def q1_one_bias_for_all_heads():
    return _q1(biases=32)


# ----------------------------------------------------------------------------- q2: ALiBi's bias


def _slopes(n):
    return 2.0 ** (-8 * torch.arange(1, n + 1) / n)


def _back(t, s):
    return (torch.arange(s)[None] - (torch.arange(t) + s - t)[:, None]).abs()


def q2_positive(n_heads, t, s):
    return _slopes(n_heads)[:, None, None] * _back(t, s)


def q2_top_left(n_heads, t, s):
    return -_slopes(n_heads)[:, None, None] * (torch.arange(s) - torch.arange(t)[:, None]).abs()


def q2_own_distance_one(n_heads, t, s):
    return -_slopes(n_heads)[:, None, None] * (_back(t, s) + 1)


def q2_slopes_from_one(n_heads, t, s):
    slopes = 2.0 ** (-8 * torch.arange(n_heads) / n_heads)
    return -slopes[:, None, None] * _back(t, s)


def q2_flattest_first(n_heads, t, s):
    return -_slopes(n_heads).flip(0)[:, None, None] * _back(t, s)


def q2_slopes_for_eight_heads(n_heads, t, s):
    return -(2.0 ** -torch.arange(1, n_heads + 1))[:, None, None] * _back(t, s)


def q2_no_absolute_value(n_heads, t, s):
    ahead = torch.arange(s)[None] - (torch.arange(t) + s - t)[:, None]
    return _slopes(n_heads)[:, None, None] * ahead


def q2_heads_last(n_heads, t, s):
    return -_slopes(n_heads) * _back(t, s)[..., None]


# ------------------------------------------------------------------------------- q3: T5's buckets


def _large(ago, n, far, whole=torch.Tensor.long, top=None):
    half = n // 2
    depth = (ago.clamp(min=1) / half).log() / math.log(far / half)
    return (half + whole(depth * half)).clamp(max=n - 1 if top is None else top)


def _choose(ago, n, large):
    return torch.where(ago < n // 2, ago, large)


def q3_rounds_up(ago, n, far):
    return _choose(ago, n, _large(ago, n, far, lambda x: x.ceil().long()))


def q3_rounds_to_nearest(ago, n, far):
    return _choose(ago, n, _large(ago, n, far, lambda x: x.round().long()))


def q3_one_bucket_too_many(ago, n, far):
    return _choose(ago, n, _large(ago, n, far, top=n))


def q3_not_clamped(ago, n, far):
    return _choose(ago, n, _large(ago, n, far, top=10**9))


def q3_off_by_one(ago, n, far):
    return _choose(ago, n, _large(ago + 1, n, far))


def q3_encoder_buckets(ago, n, far):
    return _choose(ago, n // 2, _large(ago, n // 2, far))


def q3_log_of_far_alone(ago, n, far):
    half = n // 2
    depth = (ago.clamp(min=1) / half).log() / math.log(far)
    return _choose(ago, n, (half + (depth * half).long()).clamp(max=n - 1))


def q3_linear(ago, n, far):
    half = n // 2
    large = (half + ((ago - half) / (far - half) * half).long()).clamp(max=n - 1)
    return _choose(ago, n, large)


def q3_always_32_and_128(ago, n, far):
    n, far = 32, 128
    return _choose(ago, n, _large(ago, n, far))


def q3_far_always_128(ago, n, far):
    return _choose(ago, n, _large(ago, n, 128))


def q3_floats(ago, n, far):
    return _choose(ago, n, _large(ago, n, far)).float()


# ---------------------------------------------------------------------- q4: RoPE in both layouts


def _rotate(x, positions, base, layout, sign=1, exponent=2, size=None, unit=1.0):
    p = x.shape[-1]
    i = torch.arange(p // 2, dtype=x.dtype)
    angle = unit * positions[:, None] * base ** (-exponent * i / (size or p))
    out, half = torch.empty_like(x), p // 2
    pairs = layout == "pairs"
    one = slice(0, p, 2) if pairs else slice(0, half)
    two = slice(1, p, 2) if pairs else slice(half, p)
    u, v = x[:, one], x[:, two]
    out[:, one] = u * angle.cos() - sign * v * angle.sin()
    out[:, two] = sign * u * angle.sin() + v * angle.cos()
    return out


def q4_layouts_swapped(x, positions, base, layout):
    return _rotate(x, positions, base, "halves" if layout == "pairs" else "pairs")


def q4_always_pairs(x, positions, base, layout):
    return _rotate(x, positions, base, "pairs")


def q4_always_halves(x, positions, base, layout):
    return _rotate(x, positions, base, "halves")


def q4_other_way(x, positions, base, layout):
    return _rotate(x, positions, base, layout, sign=-1)


def q4_both_signs_plus(x, positions, base, layout):
    right, left = (_rotate(x, positions, base, layout, sign=s) for s in (1, -1))
    p = x.shape[-1]
    second = torch.arange(p) % 2 == 1 if layout == "pairs" else torch.arange(p) >= p // 2
    return torch.where(second, right, left)


def q4_exponent_without_2(x, positions, base, layout):
    return _rotate(x, positions, base, layout, exponent=1)


def q4_divides_by_pairs(x, positions, base, layout):
    return _rotate(x, positions, base, layout, size=x.shape[-1] // 2)


def q4_base_ignored(x, positions, base, layout):
    return _rotate(x, positions, 10000.0, layout)


def q4_degrees(x, positions, base, layout):
    return _rotate(x, positions, base, layout, unit=math.pi / 180)


def q4_in_place(x, positions, base, layout):
    return x.copy_(_rotate(x, positions, base, layout))


def q4_put_back_as_halves(x, positions, base, layout):
    out = _rotate(x, positions, base, layout)
    return torch.cat([out[:, 0::2], out[:, 1::2]], dim=1) if layout == "pairs" else out


def q4_counts_rows_itself(x, positions, base, layout):
    return _rotate(x, torch.arange(len(x)), base, layout)


# --------------------------------------------------------------------------- q5: stretching RoPE


def _keep(theta, trained_len, low=1, high=4):
    turns = trained_len * theta / (2 * math.pi)
    return ((turns - low) / (high - low)).clamp(0, 1)


def _mix(theta, factor, keep):
    return (1 - keep) * theta / factor + keep * theta


def q5_interpolates_all(theta, factor, trained_len):
    return theta / factor


def q5_other_way_round(theta, factor, trained_len):
    return _mix(theta, factor, 1 - _keep(theta, trained_len))


def q5_multiplies(theta, factor, trained_len):
    return _mix(theta, 1 / factor, _keep(theta, trained_len))


def q5_radians_not_turns(theta, factor, trained_len):
    return _mix(theta, factor, _keep(theta, 2 * math.pi * trained_len))


def q5_yarns_borders(theta, factor, trained_len):
    return _mix(theta, factor, _keep(theta, trained_len, high=32))


def q5_not_clamped(theta, factor, trained_len):
    turns = trained_len * theta / (2 * math.pi)
    return _mix(theta, factor, (turns - 1) / 3)


def q5_mixes_wavelengths(theta, factor, trained_len):
    keep = _keep(theta, trained_len)
    return 1 / ((1 - keep) * factor / theta + keep / theta)


def q5_no_mixing(theta, factor, trained_len):
    return _mix(theta, factor, (_keep(theta, trained_len) > 0).to(theta.dtype))


def q5_stretched_length(theta, factor, trained_len):
    return _mix(theta, factor, _keep(theta, trained_len * factor))


def q5_in_place(theta, factor, trained_len):
    return theta.copy_(_mix(theta, factor, _keep(theta, trained_len)))


# -------------------------------------------------------------------------- q6: the bug in a cache


def _next(q, k, v, cache, theta, query_at=None, key_at=None, again=False):
    t, start = q.shape[2], cache["k"].shape[2] if cache else 0
    place = torch.arange(start, start + t)[None]
    q = turn(q, place if query_at is None else query_at(start, t), theta)
    k = turn(k, place if key_at is None else key_at(start, t), theta)
    if cache:
        old = cache["k"] if not again else turn(cache["k"], torch.arange(start)[None], theta)
        k, v = torch.cat([old, k], dim=2), torch.cat([cache["v"], v], dim=2)
    cache["k"], cache["v"] = k, v
    return scaled_dot_product_attention(q, k, v, causal=True)


def _from_zero(start, t):
    return torch.arange(t)[None]


def q6_as_given(q, k, v, cache, theta):
    return _next(q, k, v, cache, theta, _from_zero, _from_zero)


def q6_only_keys(q, k, v, cache, theta):
    return _next(q, k, v, cache, theta, query_at=_from_zero)


def q6_only_queries(q, k, v, cache, theta):
    return _next(q, k, v, cache, theta, key_at=_from_zero)


def q6_after_the_new_ones(q, k, v, cache, theta):
    def place(start, t):
        return torch.arange(start + t, start + 2 * t)[None]

    return _next(q, k, v, cache, theta, place, place)


def q6_one_position_for_a_piece(q, k, v, cache, theta):
    def place(start, t):
        return torch.arange(t)[None] if start == 0 else torch.full((1, t), start)

    return _next(q, k, v, cache, theta, place, place)


def q6_turns_the_cache_again(q, k, v, cache, theta):
    return _next(q, k, v, cache, theta, again=True)


def q6_one_place_too_far(q, k, v, cache, theta):
    def place(start, t):
        return torch.arange(start, start + t)[None] + (start > 0)

    return _next(q, k, v, cache, theta, place, place)


def q6_no_positions_at_all(q, k, v, cache, theta):
    def place(start, t):
        return torch.zeros(1, t, dtype=torch.long)

    return _next(q, k, v, cache, theta, place, place)
