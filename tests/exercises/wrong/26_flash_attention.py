"""Wrong answers to exercises/26_flash_attention: mistakes people make, and each must fail."""

import numpy as np
import torch

from minillm.kernels.dispatch import jit, tl
from minillm.kernels.tiles import keep, take

LOG2E = 1.4426950408889634

# -------------------------------------------------------------------------------- q1: count bytes

_SMALL, _LARGE, _LSE = 2 * 1024 * 64, 2 * 1024 * 1024, 4 * 1024


def _q1(**changed):
    right = {
        "four_operations": 4 * _SMALL + 6 * _LARGE,
        "flash": 18 * _SMALL + _LSE,
        "flash_causal": 2 * _SMALL + _LSE + 36 * 128 * 256,
        "kept": 4 * _SMALL + _LSE,
    }
    return right | changed


def q1_scores_once():
    return _q1(four_operations=4 * _SMALL + _LARGE)


def q1_forgets_the_scaling():
    return _q1(four_operations=4 * _SMALL + 4 * _LARGE)


def q1_only_the_scores():
    return _q1(four_operations=6 * _LARGE)


def q1_numbers_not_bytes():
    return _q1(four_operations=2 * _SMALL + 3 * _LARGE)


def q1_four_bytes_a_number():
    return _q1(four_operations=8 * _SMALL + 12 * _LARGE)


def q1_everything_once():
    return _q1(flash=4 * _SMALL + _LSE)


def q1_tiles_of_keys_counted():
    return _q1(flash=2 * _SMALL + _LSE + 16 * 2 * _SMALL)


def q1_keys_without_values():
    return _q1(flash=10 * _SMALL + _LSE)


def q1_no_log_sum_exp():
    return _q1(flash=18 * _SMALL)


def q1_log_sum_exp_in_half():
    return _q1(flash=18 * _SMALL + _LSE // 2)


def q1_queries_for_every_tile():
    return _q1(flash=32 * _SMALL + _LSE)


def q1_mask_saves_nothing():
    return _q1(flash_causal=18 * _SMALL + _LSE)


def q1_mask_halves_everything():
    return _q1(flash_causal=(18 * _SMALL + _LSE) // 2)


def q1_exactly_half_the_keys():
    return _q1(flash_causal=10 * _SMALL + _LSE)


def q1_diagonal_not_read():
    return _q1(flash_causal=2 * _SMALL + _LSE + 28 * 128 * 256)


def q1_output_not_kept():
    return _q1(kept=3 * _SMALL + _LSE)


def q1_log_sum_exp_not_kept():
    return _q1(kept=4 * _SMALL)


def q1_weights_kept():
    return _q1(kept=3 * _SMALL + _LARGE)


# ---------------------------------------------------------------------------------- q2: join parts


def _factors(one, two):
    m = torch.maximum(one[0], two[0])
    safe = torch.where(m == -torch.inf, torch.zeros_like(m), m)
    return m, torch.exp(one[0] - safe), torch.exp(two[0] - safe)


def q2_nothing_rescaled(one, two):
    return torch.maximum(one[0], two[0]), one[1] + two[1], one[2] + two[2]


def q2_a_not_rescaled(one, two):
    m, f, g = _factors(one, two)
    return m, f * one[1] + g * two[1], one[2] + two[2]


def q2_l_not_rescaled(one, two):
    m, f, g = _factors(one, two)
    return m, one[1] + two[1], f[:, None] * one[2] + g[:, None] * two[2]


def q2_nan_for_empty_parts(one, two):
    m = torch.maximum(one[0], two[0])
    f, g = torch.exp(one[0] - m), torch.exp(two[0] - m)
    return m, f * one[1] + g * two[1], f[:, None] * one[2] + g[:, None] * two[2]


def q2_without_the_maximum(one, two):
    f, g = torch.exp(one[0]), torch.exp(two[0])
    m = torch.maximum(one[0], two[0])
    h = torch.exp(-m)
    return (
        m,
        (f * one[1] + g * two[1]) * h,
        (f[:, None] * one[2] + g[:, None] * two[2]) * h[:, None],
    )


def q2_powers_divided_at_the_end(one, two):
    m = torch.maximum(one[0], two[0])
    f, g, h = (torch.exp(x) for x in (one[0], two[0], m))
    h = torch.where(m == -torch.inf, torch.ones_like(h), h)
    total = f * one[1] + g * two[1]
    return m, total / h, (f[:, None] * one[2] + g[:, None] * two[2]) / h[:, None]


def _clamped(one, two, least):
    m = torch.maximum(one[0], two[0])
    f, g = (torch.exp(x - m.clamp(min=least)) for x in (one[0], two[0]))
    return m, f * one[1] + g * two[1], f[:, None] * one[2] + g[:, None] * two[2]


def q2_maximum_at_least_zero(one, two):
    return _clamped(one, two, 0.0)


def q2_maximum_at_least_minus_a_billion(one, two):
    return _clamped(one, two, -1e9)


def q2_upside_down(one, two):
    m, f, g = _factors(one, two)
    return m, one[1] / f + two[1] / g, one[2] / f[:, None] + two[2] / g[:, None]


def q2_factors_swapped(one, two):
    m, f, g = _factors(one, two)
    return m, g * one[1] + f * two[1], g[:, None] * one[2] + f[:, None] * two[2]


def q2_smaller_maximum(one, two):
    m = torch.minimum(one[0], two[0])
    f, g = torch.exp(one[0] - m), torch.exp(two[0] - m)
    return m, f * one[1] + g * two[1], f[:, None] * one[2] + g[:, None] * two[2]


def q2_averages_the_outputs(one, two):
    m, f, g = _factors(one, two)
    mean = (one[2] / one[1][:, None] + two[2] / two[1][:, None]) / 2
    return m, f * one[1] + g * two[1], mean


def q2_only_the_second_is_rescaled(one, two):
    m, _, g = _factors(one, two)
    return m, one[1] + g * two[1], one[2] + g[:, None] * two[2]


def q2_empty_maximum_becomes_zero(one, two):
    m, f, g = _factors(one, two)
    a = f[:, None] * one[2] + g[:, None] * two[2]
    return torch.where(m == -torch.inf, torch.zeros_like(m), m), f * one[1] + g * two[1], a


def q2_changes_its_input(one, two):
    m, f, g = _factors(one, two)
    one[1].mul_(f).add_(g * two[1])
    return m, one[1], f[:, None] * one[2] + g[:, None] * two[2]


# ------------------------------------------------------------------------- q3: attention by tiles


def _attend(q, k, v, M, N, bug=""):
    wide = torch.promote_types(q.dtype, torch.float32) if bug != "half" else q.dtype
    s = len(k) // N * N if bug == "drops the rest" else len(k)
    out, lse2 = torch.empty_like(q), torch.empty(len(q), dtype=wide)
    scale = {"no scale": LOG2E, "p": LOG2E / q.shape[1], "base": q.shape[1] ** -0.5}.get(
        bug, LOG2E / q.shape[1] ** 0.5
    )
    for i in range(0, len(q), M):
        rows = q[i : i + M].to(wide) * scale
        high = torch.full((len(rows), 1), 0.0 if bug == "no maximum" else -torch.inf, dtype=wide)
        total, acc = torch.zeros_like(high), torch.zeros_like(rows)
        for j in range(0, s, N):
            scores = rows @ k[j : j + N].to(wide).T
            higher = high if bug == "no maximum" else torch.maximum(high, scores.amax(1, True))
            weights, shrink = torch.exp2(scores - higher), torch.exp2(high - higher)
            one = torch.ones_like(shrink)
            total = total * (one if bug in ("total", "both") else shrink) + weights.sum(1, True)
            acc = acc * (one if bug in ("acc", "both") else shrink) + weights @ v[j : j + N].to(
                wide
            )
            acc = acc.half().to(wide) if bug == "acc in half" and q.dtype == torch.float16 else acc
            high = higher
        out[i : i + M] = (acc / total).to(q.dtype)
        lse = high + torch.log2(total)
        lse2[i : i + M] = lse[:, 0] / LOG2E if bug == "natural" else lse[:, 0]
    return out, lse2


def q3_acc_not_rescaled(q, k, v, M, N):
    return _attend(q, k, v, M, N, "acc")


def q3_total_not_rescaled(q, k, v, M, N):
    return _attend(q, k, v, M, N, "total")


def q3_nothing_rescaled(q, k, v, M, N):
    return _attend(q, k, v, M, N, "both")


def q3_no_maximum(q, k, v, M, N):
    return _attend(q, k, v, M, N, "no maximum")


def q3_no_scale(q, k, v, M, N):
    return _attend(q, k, v, M, N, "no scale")


def q3_divides_by_p(q, k, v, M, N):
    return _attend(q, k, v, M, N, "p")


def q3_base_2_without_the_factor(q, k, v, M, N):
    return _attend(q, k, v, M, N, "base")


def q3_natural_logarithm(q, k, v, M, N):
    return _attend(q, k, v, M, N, "natural")


def q3_drops_the_rest(q, k, v, M, N):
    return _attend(q, k, v, M, N, "drops the rest")


def q3_all_in_half(q, k, v, M, N):
    out, lse2 = _attend(q, k, v, M, N, "half")
    return out, lse2.float() if q.dtype == torch.float16 else lse2


def q3_accumulator_in_half(q, k, v, M, N):
    return _attend(q, k, v, M, N, "acc in half")


def q3_log_sum_exp_in_half(q, k, v, M, N):
    out, lse2 = _attend(q, k, v, M, N)
    return out, lse2.to(q.dtype)


def q3_never_cast_back(q, k, v, M, N):
    return _attend(*(x.to(torch.promote_types(x.dtype, torch.float32)) for x in (q, k, v)), M, N)


def q3_all_scores_at_once(q, k, v, M, N):
    return _attend(q, k, v, len(q), len(k))


def q3_rows_of_scores(q, k, v, M, N):
    return _attend(q, k, v, M, len(k)) if len(k) < 57 else _attend(q, k, v, len(q), N)


def q3_no_tiles_of_keys(q, k, v, M, N):
    out, lse2 = [], []
    for i in range(0, len(q), M):
        S = (q[i : i + M] @ k.T).double() / q.shape[1] ** 0.5
        out.append(S.softmax(1) @ v.double())
        lse2.append(S.logsumexp(1) * LOG2E)
    wide = torch.promote_types(q.dtype, torch.float32)
    return torch.cat(out).to(q.dtype), torch.cat(lse2).to(wide)


def q3_one_query_at_a_time(q, k, v, M, N):
    return q3_no_tiles_of_keys(q, k, v, 1, N)


def q3_one_query_and_a_tile_of_keys(q, k, v, M, N):
    return _attend(q, k, v, 1, N)


def q3_one_key_at_a_time(q, k, v, M, N):
    return _attend(q, k, v, M, 1)


def q3_all_queries_at_once(q, k, v, M, N):
    return _attend(q, k, v, len(q), N)


def q3_sums_of_powers(q, k, v, M, N):
    powers = torch.zeros(len(q), dtype=torch.promote_types(q.dtype, torch.float32))
    out = torch.zeros(q.shape, dtype=powers.dtype)
    for i in range(0, len(q), M):
        for j in range(0, len(k), N):
            rows = q[i : i + M].to(powers.dtype) * (LOG2E / q.shape[1] ** 0.5)
            weights = 2 ** (rows @ k[j : j + N].to(powers.dtype).T)
            powers[i : i + M] += weights.sum(1)
            out[i : i + M] += weights @ v[j : j + N].to(powers.dtype)
    return (out / powers[:, None]).to(q.dtype), powers.log2()


def q3_everything_in_half(q, k, v, M, N):
    return _attend(q, k, v, M, N, "half")


def q3_always_float64(q, k, v, M, N):
    return _attend(q.double(), k.double(), v.double(), M, N)


def q3_log_sum_exp_always_float32(q, k, v, M, N):
    out, lse2 = _attend(q, k, v, M, N)
    return out, lse2.float()


def q3_fused_attention(q, k, v, M, N):
    heads = (x[None, None] for x in (q, k, v))
    out = torch.nn.functional.scaled_dot_product_attention(*heads)[0, 0]
    return out, _attend(q, k, v, M, N)[1]


def q3_tiles_normalized(q, k, v, M, N):
    right, lse2 = _attend(q, k, v, M, N)
    parts = [_attend(q, k[j : j + N], v[j : j + N], M, N)[0] for j in range(0, len(k), N)]
    return sum(parts), lse2


def q3_last_tile_only(q, k, v, M, N):
    j = (len(k) - 1) // N * N
    return _attend(q, k[j:], v[j:], M, N)


def q3_only_the_output(q, k, v, M, N):
    return _attend(q, k, v, M, N)[0]


def q3_maximum_forgotten_in_lse(q, k, v, M, N):
    out, lse2 = _attend(q, k, v, M, N)
    return out, lse2 - (q @ k.T).amax(1) * LOG2E / q.shape[1] ** 0.5


def q3_changes_its_input(q, k, v, M, N):
    out = _attend(q, k, v, M, N)
    q *= LOG2E / q.shape[1] ** 0.5
    return out


# ---------------------------------------------------------------------------- q4: tiles to skip


def _clamp(n, s):
    return max(min(n, s), 0)


def q4_top_left(start, t, s, M, N):
    return _clamp(start + 1, s) // N * N, _clamp(start + M, s)


def q4_stops_at_the_diagonal(start, t, s, M, N):
    return _clamp(s - t + start + 1, s) // N * N, _clamp(s - t + start, s)


def q4_one_key_short(start, t, s, M, N):
    return _clamp(s - t + start + 1, s) // N * N, _clamp(s - t + start + M - 1, s)


def q4_one_key_long(start, t, s, M, N):
    return _clamp(s - t + start + 1, s) // N * N, _clamp(s - t + start + M + 1, s)


def q4_skips_nothing(start, t, s, M, N):
    return _clamp(s - t + start + 1, s) // N * N, s


def q4_masks_everything(start, t, s, M, N):
    return 0, _clamp(s - t + start + M, s)


def q4_full_by_the_last_query(start, t, s, M, N):
    last = _clamp(s - t + start + M, s)
    return last // N * N, last


def q4_full_rounded_up(start, t, s, M, N):
    return -(-_clamp(s - t + start + 1, s) // N) * N, _clamp(s - t + start + M, s)


def q4_not_whole_tiles(start, t, s, M, N):
    return _clamp(s - t + start + 1, s), _clamp(s - t + start + M, s)


def q4_one_full_tile_too_few(start, t, s, M, N):
    return _clamp(s - t + start, s) // N * N, _clamp(s - t + start + M, s)


def q4_negative(start, t, s, M, N):
    return min(s - t + start + 1, s) // N * N, min(s - t + start + M, s)


def q4_negative_stop(start, t, s, M, N):
    return _clamp(s - t + start + 1, s) // N * N, min(s - t + start + M, s)


def q4_floats(start, t, s, M, N):
    full, stop = _clamp(s - t + start + 1, s), _clamp(s - t + start + M, s)
    return float(full // N * N), float(stop)


def q4_beyond_the_end(start, t, s, M, N):
    return max(s - t + start + 1, 0) // N * N, max(s - t + start + M, 0)


def q4_stop_in_whole_tiles(start, t, s, M, N):
    last = _clamp(s - t + start + M, s)
    return _clamp(s - t + start + 1, s) // N * N, -(-last // N) * N


def q4_only_one_number(start, t, s, M, N):
    return _clamp(s - t + start + M, s)


# ------------------------------------------------------------------------- q5: backward, one tile


def _gradients(q, k, v, do, lse2, D, seen, bug=""):
    scale = q.shape[1] ** -0.5
    exponent = q @ k.T * (scale * LOG2E) - lse2[:, None]
    if bug == "masked before":
        exponent = exponent.masked_fill(~seen, -torch.inf)
        exponent = exponent - exponent.amax(1, True)
    weights = torch.exp(exponent) if bug == "base" else torch.exp2(exponent)
    if bug == "renormalized":
        weights = weights / weights.sum(1, True)
    if bug != "no mask":
        weights = weights.masked_fill(~seen, 0.0)
    dp = do @ v.T
    ds = weights * {"no D": dp, "plus D": dp + D[:, None]}.get(bug, dp - D[:, None])
    if bug == "own D":
        ds = weights * (dp - (weights * dp).sum(1, True))
    if bug == "no weights":
        ds = dp - D[:, None]
    return ds @ k * scale, ds.T @ q * scale, weights.T @ do


def q5_no_d(*tile):
    return _gradients(*tile, "no D")


def q5_d_added(*tile):
    return _gradients(*tile, "plus D")


def q5_d_of_this_tile(*tile):
    return _gradients(*tile, "own D")


def q5_weights_in_base_e(*tile):
    return _gradients(*tile, "base")


def q5_weights_normalized_in_the_tile(*tile):
    return _gradients(*tile, "renormalized")


def q5_mask_forgotten(*tile):
    return _gradients(*tile, "no mask")


def q5_new_maximum(*tile):
    return _gradients(*tile, "masked before")


def q5_ds_without_weights(*tile):
    return _gradients(*tile, "no weights")


def q5_dk_without_the_scale(q, *rest):
    dq, dk, dv = _gradients(q, *rest)
    return dq, dk * q.shape[1] ** 0.5, dv


def q5_no_scale(q, *rest):
    dq, dk, dv = _gradients(q, *rest)
    return dq * q.shape[1] ** 0.5, dk * q.shape[1] ** 0.5, dv


def q5_log2e_in_the_gradients(*tile):
    dq, dk, dv = _gradients(*tile)
    return dq * LOG2E, dk * LOG2E, dv


def q5_infinity_turned_around(q, k, v, do, lse2, D, seen):
    scores = (q @ k.T * (q.shape[1] ** -0.5 * LOG2E)).masked_fill(~seen, -torch.inf)
    weights = 2 ** (scores - lse2.nan_to_num(posinf=-torch.inf)[:, None])
    ds = weights * (do @ v.T - D[:, None])
    scale = q.shape[1] ** -0.5
    return ds @ k * scale, ds.T @ q * scale, weights.T @ do


def q5_sum_of_minus_infinities(q, k, v, do, lse2, D, seen):
    scores = (q @ k.T * (q.shape[1] ** -0.5 * LOG2E)).masked_fill(~seen, -torch.inf)
    weights = 2 ** (scores - scores.logsumexp(1, keepdim=True) * 0 - lse2[:, None])
    ds = weights * (do @ v.T - D[:, None])
    scale = q.shape[1] ** -0.5
    return ds @ k * scale, ds.T @ q * scale, weights.T @ do


def q5_dv_from_ds(q, k, v, do, lse2, D, seen):
    dq, dk, _ = _gradients(q, k, v, do, lse2, D, seen)
    weights = torch.exp2(q @ k.T * (q.shape[1] ** -0.5 * LOG2E) - lse2[:, None])
    return dq, dk, (weights * (do @ v.T - D[:, None])).masked_fill(~seen, 0.0).T @ do


def q5_dq_and_dk_swapped(*tile):
    dq, dk, dv = _gradients(*tile)
    return dk, dq, dv


def q5_changes_its_input(q, k, v, do, lse2, D, seen):
    out = _gradients(q, k, v, do, lse2, D, seen)
    q *= q.shape[1] ** -0.5
    return out


def q5_rows_without_a_key_give_nan(q, k, v, do, lse2, D, seen):
    dq, dk, dv = _gradients(q, k, v, do, lse2, D, seen)
    return dq + (0 * lse2)[:, None], dk, dv


# ------------------------------------------------------------------------------- q6: the kernel


@jit
def _kernel(
    q_ptr, k_ptr, v_ptr, o_ptr, t, p, scale, AHEAD: tl.constexpr, SKIP: tl.constexpr,
    RESCALE: tl.constexpr, HALF: tl.constexpr, SAFE: tl.constexpr, P: tl.constexpr,
    M: tl.constexpr, N: tl.constexpr,
):  # fmt: skip
    start = tl.program_id(0) * M
    rows = start + tl.arange(0, M)
    q = take(q_ptr, rows, p, t, p, P)
    high = tl.full([M], -float("inf"), tl.float32)
    total = tl.zeros([M], tl.float32)
    acc = tl.zeros([M, P], tl.float32)
    stop = tl.minimum(t, start + M)
    if SKIP == 1:
        stop = tl.minimum(t, tl.maximum(start, N))
    if SKIP == 2:
        stop = tl.minimum(t, start + N)
    if SKIP == 3:
        stop = t
    for first in range(0, stop, N):
        keys = first + tl.arange(0, N)
        k, v = take(k_ptr, keys, p, t, p, P), take(v_ptr, keys, p, t, p, P)
        scores = tl.dot(q, tl.trans(k), input_precision="ieee") * scale
        seen = (keys[None] <= rows[:, None] + AHEAD) & (keys[None] < t)
        scores = tl.where(seen, scores, -float("inf"))
        higher = tl.maximum(high, tl.max(scores, 1))
        if SAFE:
            safe = tl.where(higher == -float("inf"), 0.0, higher)
        else:
            safe = tl.zeros([M], tl.float32)
        weights = tl.exp2(scores - safe[:, None])
        shrink = tl.exp2(high - safe)
        if not SAFE:
            shrink = tl.full([M], 1.0, tl.float32)
        if RESCALE != 1:
            total = total * shrink
        if RESCALE != 2:
            acc = acc * shrink[:, None]
        total += tl.sum(weights, 1)
        acc += tl.dot(weights, v, input_precision="ieee")
        if HALF:
            acc = acc.to(tl.float16).to(tl.float32)
        high = higher
    total = tl.where(total == 0, 1.0, total)
    keep(o_ptr, acc / total[:, None], rows, p, t, p, P)


def _launch(q, k, v, M, N, ahead=0, skip=False, rescale=0, half=False, safe=True, base=LOG2E):
    t, p = q.shape
    out, size = torch.empty_like(q), max(16, 1 << (p - 1).bit_length())
    numbers = (q, k, v, out, t, p, base / p**0.5)
    _kernel[(-(-t // M),)](*numbers, ahead, skip, rescale, half, safe, P=size, M=M, N=N)
    return out


def q6_sees_the_next_key(q, k, v, M=16, N=16):
    return _launch(q, k, v, M, N, ahead=1)


def q6_does_not_see_itself(q, k, v, M=16, N=16):
    return _launch(q, k, v, M, N, ahead=-1)


def q6_no_mask(q, k, v, M=16, N=16):
    return _launch(q, k, v, M, N, ahead=1000)


def q6_diagonal_tile_skipped(q, k, v, M=16, N=16):
    return _launch(q, k, v, M, N, skip=True)


def q6_stops_after_as_many_keys_as_one_tile(q, k, v, M=16, N=16):
    return _launch(q, k, v, M, N, skip=2)


def q6_skips_nothing(q, k, v, M=16, N=16):
    return _launch(q, k, v, M, N, skip=3)


def q6_by_numpy(q, k, v, M=16, N=16):
    a, b, c = (x.double().numpy() for x in (q, k, v))
    weights = np.tril(np.exp(a @ b.T / a.shape[1] ** 0.5))
    return torch.from_numpy(weights @ c / weights.sum(1, keepdims=True)).float()


def q6_elementwise(q, k, v, M=16, N=16):
    scores = (q[:, None] * k[None]).sum(-1) / q.shape[1] ** 0.5
    weights = (scores - scores.amax(1, True)).exp().tril()
    return (weights[:, :, None] * v[None]).sum(1) / weights.sum(1, True)


def q6_acc_not_rescaled(q, k, v, M=16, N=16):
    return _launch(q, k, v, M, N, rescale=2)


def q6_total_not_rescaled(q, k, v, M=16, N=16):
    return _launch(q, k, v, M, N, rescale=1)


def q6_half_precision_accumulator(q, k, v, M=16, N=16):
    return _launch(q, k, v, M, N, half=True)


def q6_no_maximum(q, k, v, M=16, N=16):
    return _launch(q, k, v, M, N, safe=False)


def q6_base_2_without_the_factor(q, k, v, M=16, N=16):
    return _launch(q, k, v, M, N, base=1.0)


def q6_tiles_are_always_16(q, k, v, M=16, N=16):
    out = _launch(q, k, v, 16, 16)
    if M != 16 or N != 16:
        out[16:] = _launch(q, k, v, 16, 16, skip=True)[16:]
    return out


def q6_two_bugs_left(q, k, v, M=16, N=16):
    return _launch(q, k, v, M, N, ahead=1, half=True)


def q6_as_given(q, k, v, M=16, N=16):
    return _launch(q, k, v, M, N, ahead=1, skip=True, rescale=2, half=True)


def q6_by_torch(q, k, v, M=16, N=16):
    seen = torch.ones(len(q), len(q)).tril().bool()
    return (q @ k.T / q.shape[1] ** 0.5).masked_fill(~seen, -torch.inf).softmax(1) @ v


def q6_wrong_shape(q, k, v, M=16, N=16):
    return _launch(q, k, v, M, N)[None]
