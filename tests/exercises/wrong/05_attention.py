"""Wrong answers to exercises/05_attention: each is a mistake people make, and each must fail."""

import math

import torch
import torch.nn.functional as F

from minillm.nn import attention_weights
from minillm.nn.sparse import sliding_window

# --------------------------------------------------------------------- q1: predict shapes and bytes


def _q1(weights_shape=(3, 16, 5, 1005), cache_bytes=2 * 24 * 3 * 4 * 1005 * 64 * 2):
    return {"weights_shape": weights_shape, "cache_bytes": cache_bytes}


def q1_one_table_per_key_value_head():
    return _q1(weights_shape=(3, 4, 5, 1005))


def q1_all_tokens_ask():
    return _q1(weights_shape=(3, 16, 1005, 1005))


def q1_new_tokens_not_among_keys():
    return _q1(weights_shape=(3, 16, 5, 1000))


def q1_transposed():
    return _q1(weights_shape=(3, 16, 1005, 5))


def q1_forgets_batch_axis():
    return _q1(weights_shape=(16, 5, 1005))


def q1_keys_only():
    return _q1(cache_bytes=24 * 3 * 4 * 1005 * 64 * 2)


def q1_counts_query_heads():
    return _q1(cache_bytes=2 * 24 * 3 * 16 * 1005 * 64 * 2)


def q1_one_layer():
    return _q1(cache_bytes=2 * 3 * 4 * 1005 * 64 * 2)


def q1_before_the_step():
    return _q1(cache_bytes=2 * 24 * 3 * 4 * 1000 * 64 * 2)


def q1_four_bytes():
    return _q1(cache_bytes=2 * 24 * 3 * 4 * 1005 * 64 * 4)


# ------------------------------------------------------------------------------- q2: sliding window


def _back(t, s):
    return torch.arange(s - t, s)[:, None] - torch.arange(s)[None]


def _mask(t, s, window):
    return (_back(t, s) >= 0) & (_back(t, s) < window)


def _windowed(q, k, v, window, mask=_mask, reach=None, scale=True, whole=False, end=None):
    t, pieces = q.shape[2], []
    for start in range(0, t if end is None else end(t, window), window):
        first = max(0, start - (window - 1 if reach is None else reach))
        first, stop = 0 if whole else first, min(start + window, t)
        scores = q[:, :, start:stop] @ k[:, :, first:stop].mT
        scores = scores / math.sqrt(q.shape[3]) if scale else scores
        scores = scores.masked_fill(~mask(stop - start, stop - first, window), -math.inf)
        pieces.append(scores.softmax(dim=-1) @ v[:, :, first:stop])
    return torch.cat(pieces, dim=2)


def _q2(window_mask=_mask, windowed=_windowed):
    return {"window_mask": window_mask, "windowed": windowed}


def q2_mask_top_left_aligned():
    return _q2(lambda t, s, window: torch.ones(t, s).tril().triu(1 - window).bool())


def q2_mask_without_window():
    return _q2(lambda t, s, window: _back(t, s) >= 0)


def q2_mask_one_more():
    return _q2(lambda t, s, window: (_back(t, s) >= 0) & (_back(t, s) <= window))


def q2_mask_one_less():
    return _q2(lambda t, s, window: (_back(t, s) >= 0) & (_back(t, s) < max(window - 1, 1)))


def q2_mask_not_itself():
    return _q2(lambda t, s, window: (_back(t, s) > 0) & (_back(t, s) <= window))


def q2_mask_transposed():
    return _q2(lambda t, s, window: _mask(t, s, window).T)


def q2_mask_inverted():
    return _q2(lambda t, s, window: ~_mask(t, s, window))


def q2_mask_sees_everything():
    return _q2(lambda t, s, window: torch.ones(t, s).bool())


def q2_mask_of_numbers():
    return _q2(lambda t, s, window: _mask(t, s, window).float())


def q2_mask_additive():
    def mask(t, s, window):
        return torch.zeros(t, s).masked_fill(~_mask(t, s, window), -math.inf)

    return _q2(mask)


def q2_masked_after_computing_all():
    def windowed(q, k, v, window):
        scores = q @ k.mT / math.sqrt(q.shape[3])
        scores = scores.masked_fill(~_mask(*scores.shape[2:], window), -math.inf)
        return scores.softmax(dim=-1) @ v

    return _q2(windowed=windowed)


def q2_cuts_queries_only():
    return _q2(windowed=lambda q, k, v, window: _windowed(q, k, v, window, whole=True))


def q2_causal_without_window():
    def mask(t, s, window):
        return _back(t, s) >= 0

    return _q2(windowed=lambda q, k, v, window: _windowed(q, k, v, window, mask, whole=True))


def q2_each_piece_alone():
    return _q2(windowed=lambda q, k, v, window: _windowed(q, k, v, window, reach=0))


def q2_all_of_the_piece_before():
    def mask(t, s, window):
        return _back(t, s) >= 0

    return _q2(windowed=lambda q, k, v, window: _windowed(q, k, v, window, mask, reach=window))


def q2_window_of_one_more():
    def mask(t, s, window):
        return _mask(t, s, window + 1)

    return _q2(windowed=lambda q, k, v, window: _windowed(q, k, v, window, mask, reach=window))


def q2_window_of_one_less():
    def mask(t, s, window):
        return _mask(t, s, max(window - 1, 1))

    return _q2(windowed=lambda q, k, v, window: _windowed(q, k, v, window, mask))


def q2_looks_ahead():
    def windowed(q, k, v, window):
        t, pieces = q.shape[2], []
        for i in range(t):
            seen = slice(max(0, i - window + 1), i + window)
            scores = q[:, :, i : i + 1] @ k[:, :, seen].mT / math.sqrt(q.shape[3])
            pieces.append(scores.softmax(dim=-1) @ v[:, :, seen])
        return torch.cat(pieces, dim=2)

    return _q2(windowed=windowed)


def q2_no_scale():
    return _q2(windowed=lambda q, k, v, window: _windowed(q, k, v, window, scale=False))


def q2_drops_the_short_piece():
    def end(t, window):
        return max(t // window, 1) * window

    return _q2(windowed=lambda q, k, v, window: _windowed(q, k, v, window, end=end))


def q2_detached():
    def windowed(q, k, v, window):
        return _windowed(q.detach(), k.detach(), v, window) + 0 * (q + k)

    return _q2(windowed=windowed)


def q2_calls_torch_on_everything():
    def windowed(q, k, v, window):
        return F.scaled_dot_product_attention(q, k, v, _mask(q.shape[2], q.shape[2], window))

    return _q2(windowed=windowed)


def q2_calls_the_library():
    return _q2(windowed=lambda q, k, v, window: sliding_window(window)(q, k, v))


def q2_computes_all_without_matrix_products():
    def windowed(q, k, v, window):
        scores = (q[:, :, :, None] * k[:, :, None]).sum(-1) / math.sqrt(q.shape[3])
        scores = scores.masked_fill(~_mask(*scores.shape[2:], window), -math.inf)
        return (scores.softmax(dim=-1)[..., None] * v[:, :, None]).sum(-2)

    return _q2(windowed=windowed)


def q2_scales_in_place():
    def windowed(q, k, v, window):
        return _windowed(q.div_(math.sqrt(q.shape[3])), k, v, window, scale=False)

    return _q2(windowed=windowed)


# ---------------------------------------------------------------------- q3: grouped-query attention


def _attend(q, k, v, mask, scale=None, share=None, hide=-math.inf, dim=-1):
    n = q.shape[1] // k.shape[1]
    share = share or (lambda x: x.repeat_interleave(n, dim=1))
    k, v = share(k), share(v)
    scores = q @ k.transpose(-2, -1) * (scale or q.shape[-1] ** -0.5)
    return scores.masked_fill(~mask, hide).softmax(dim=dim) @ v


def q3_missing_scale(q, k, v, mask):
    return _attend(q, k, v, mask, scale=1.0)


def q3_scale_by_head_size(q, k, v, mask):
    return _attend(q, k, v, mask, scale=1 / q.shape[-1])


def q3_scale_by_model_width(q, k, v, mask):
    return _attend(q, k, v, mask, scale=(q.shape[1] * q.shape[-1]) ** -0.5)


def q3_repeat_instead_of_interleave(q, k, v, mask):
    return _attend(q, k, v, mask, share=lambda x: x.repeat(1, q.shape[1] // k.shape[1], 1, 1))


def q3_softmax_over_queries(q, k, v, mask):
    return _attend(q, k, v, mask, dim=-2).nan_to_num()


def q3_hides_with_zero(q, k, v, mask):
    return _attend(q, k, v, mask, hide=0.0)


def q3_mask_inverted(q, k, v, mask):
    return _attend(q, k, v, ~mask | mask.all())


def q3_ignores_mask(q, k, v, mask):
    return _attend(q, k, v, torch.ones_like(mask))


def q3_mask_after_softmax(q, k, v, mask):
    n = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(n, dim=1), v.repeat_interleave(n, dim=1)
    return ((q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5).softmax(dim=-1) * mask) @ v


def q3_minus_ten(q, k, v, mask):
    return _attend(q, k, v, mask, hide=-10.0)


def q3_detached_weights(q, k, v, mask):
    return _attend(q.detach(), k, v, mask) + 0 * q


def q3_scale_by_number_of_queries(q, k, v, mask):
    return _attend(q, k, v, mask, scale=q.shape[2] ** -0.5)


def q3_scale_by_number_of_keys(q, k, v, mask):
    return _attend(q, k, v, mask, scale=k.shape[2] ** -0.5)


def q3_mask_inverted_throughout(q, k, v, mask):
    return _attend(q, k, v, ~mask)


def q3_mask_inverted_with_a_large_number(q, k, v, mask):
    return _attend(q, k, v, ~mask, hide=-1e9)


def q3_no_sharing(q, k, v, mask):
    return _attend(q, k, v, mask, share=lambda x: x)


def q3_shares_keys_only(q, k, v, mask):
    scores = q @ k.repeat_interleave(q.shape[1] // k.shape[1], dim=1).mT / math.sqrt(q.shape[3])
    return scores.masked_fill(~mask, -math.inf).softmax(dim=-1) @ v


def q3_calls_torch(q, k, v, mask):
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=True)


def q3_calls_torch_by_another_name(q, k, v, mask, attention=F.scaled_dot_product_attention):
    return attention(q, k, v, attn_mask=mask, enable_gqa=True)


def q3_calls_the_library(q, k, v, mask):
    weights = attention_weights(q, k, mask)
    return weights @ v.repeat_interleave(q.shape[1] // v.shape[1], dim=1)


def q3_minus_ten_thousand(q, k, v, mask):
    return _attend(q, k, v, mask, hide=-1e4)


def q3_exp_overflows(q, k, v, mask):
    n = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(n, dim=1), v.repeat_interleave(n, dim=1)
    weights = (q @ k.mT / math.sqrt(q.shape[3])).exp() * mask
    return weights / weights.sum(dim=-1, keepdim=True) @ v


def q3_mask_of_the_first_head(q, k, v, mask):
    return _attend(q, k, v, mask[:, :1] if mask.ndim == 4 else mask)


def q3_mask_of_the_first_sentence(q, k, v, mask):
    return _attend(q, k, v, mask[:1] if mask.ndim == 4 else mask)


def q3_scales_in_place(q, k, v, mask):
    return _attend(q.div_(math.sqrt(q.shape[3])), k, v, mask, scale=1.0)


# ------------------------------------------------------------------------------ q4: the padding bug


def _padded(q, k, v, hidden, fill=-math.inf):
    scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])
    return scores.masked_fill(hidden, fill).softmax(dim=-1) @ v


def q4_bug_left_in(q, k, v, real):
    scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])
    return (scores.softmax(dim=-1) * real[:, None, None, :]) @ v


def q4_values_zeroed(q, k, v, real):
    return _padded(q, k, v * real[:, None, :, None], torch.zeros(1, dtype=torch.bool))


def q4_hides_padded_queries(q, k, v, real):
    return _padded(q, k, v, ~real[:, None, :, None]).nan_to_num()


def q4_hides_rows_too(q, k, v, real):
    return _padded(q, k, v, ~(real[:, None, None, :] & real[:, None, :, None]), fill=0.0)


def q4_hides_the_real_ones(q, k, v, real):
    return _padded(q, k, v, (real & ~real.all(dim=1, keepdim=True))[:, None, None, :])


def q4_scores_times_mask(q, k, v, real):
    scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])
    return (scores * real[:, None, None, :]).softmax(dim=-1) @ v


def q4_divides_by_count(q, k, v, real):
    return q4_bug_left_in(q, k, v, real) * real.shape[1] / real.sum(dim=1)[:, None, None, None]


def q4_nan_rows(q, k, v, real):
    return _padded(q, k, v, ~(real[:, None, None, :] & real[:, None, :, None]))


def q4_real_inverted(q, k, v, real):
    return _padded(q, k, v, real[:, None, None, :])


def q4_real_inverted_with_a_large_number(q, k, v, real):
    return _padded(q, k, v, real[:, None, None, :], fill=-1e9)


def q4_minus_hundred(q, k, v, real):
    return _padded(q, k, v, ~real[:, None, None, :], fill=-100.0)


def q4_exp_overflows(q, k, v, real):
    weights = (q @ k.mT / math.sqrt(q.shape[3])).exp() * real[:, None, None, :]
    return weights / weights.sum(dim=-1, keepdim=True) @ v


def q4_counts_from_the_front(q, k, v, real):
    padded = torch.arange(q.shape[2]) >= real.sum(dim=1, keepdim=True)
    return _padded(q, k, v, padded[:, None, None, :])


def q4_values_zeroed_in_place(q, k, v, real):
    v *= real[:, None, :, None]
    return _padded(q, k, v, ~real[:, None, None, :])


def q4_padding_of_the_first_sentence(q, k, v, real):
    return _padded(q, k, v, ~real[0])


# -------------------------------------------------------------------------------------- q5: entropy


def _entropy(q, k, scale):
    return -_terms(q, k, scale).sum(dim=-1).mean()


def _terms(q, k, scale, dim=-1):
    logs = (q @ k.T * scale).log_softmax(dim=dim)
    return logs.exp() * logs


def _q5(mean_entropy=_entropy, fraction_left=0.064):
    return {"mean_entropy": mean_entropy, "fraction_left": fraction_left}


def q5_bits():
    return _q5(lambda q, k, scale: _entropy(q, k, scale) / math.log(2))


def q5_mean_over_keys():
    return _q5(lambda q, k, scale: -_terms(q, k, scale).mean())


def q5_sum_over_queries():
    return _q5(lambda q, k, scale: -_terms(q, k, scale).sum())


def q5_sign():
    return _q5(lambda q, k, scale: -_entropy(q, k, scale))


def q5_over_queries():
    return _q5(lambda q, k, scale: -_terms(q, k, scale, dim=0).sum(dim=0).mean())


def q5_zero_times_log_zero():
    def entropy(q, k, scale):
        weights = (q @ k.T * scale).softmax(dim=-1)
        return -(weights * weights.log()).sum(dim=-1).mean()

    return _q5(entropy)


def q5_log_of_weights_plus_something():
    def entropy(q, k, scale):
        weights = (q @ k.T * scale).softmax(dim=-1)
        return -(weights * (weights + 1e-3).log()).sum(dim=-1).mean()

    return _q5(entropy)


def q5_own_scale():
    return _q5(lambda q, k, scale: _entropy(q, k, q.shape[1] ** -0.5))


def q5_divides_by_scale():
    return _q5(lambda q, k, scale: _entropy(q, k, 1 / scale if scale else 0.0))


def q5_fraction_with_scale():
    return _q5(fraction_left=0.89)


def q5_fraction_in_nats():
    return _q5(fraction_left=0.064 * math.log(64))


def q5_fraction_at_half_the_head_size():
    return _q5(fraction_left=0.094)


def q5_fraction_of_the_head_size():
    return _q5(fraction_left=0.064 * math.log(64) / math.log(256))


def q5_fraction_rounded_guess():
    return _q5(fraction_left=0.05)


def q5_scales_in_place():
    return _q5(lambda q, k, scale: _entropy(q.mul_(scale), k, 1.0))


def q5_fraction_gone():
    return _q5(fraction_left=0.936)


def q5_tiny_number_in_the_logarithm():
    def entropy(q, k, scale):
        weights = (q @ k.T * scale).softmax(dim=-1)
        return -(weights * (weights + 1e-9).log()).sum(dim=-1).mean()

    return _q5(entropy)


def q5_no_mean():
    return _q5(lambda q, k, scale: -_terms(q, k, scale).sum(dim=-1))


def q5_bits_and_sign():
    return _q5(lambda q, k, scale: _entropy(q, k, scale) / -math.log(2))


def q5_fraction_is_nan():
    return _q5(fraction_left=math.nan)


def q5_fraction_in_bits():
    return _q5(fraction_left=0.064 * math.log2(64))


def q5_fraction_guessed():
    return _q5(fraction_left=0.5)


def q5_fraction_negative():
    return _q5(fraction_left=-0.064)


# ------------------------------------------------------------------------------- q6: long sequences


def _long(q, k, v, chunk, end=None, first=lambda start: start, detach=False):
    t, pieces = q.shape[2], []
    for start in range(0, t if end is None else end, chunk):
        stop = min(start + chunk, t)
        scores = q[:, :, start:stop] @ k.transpose(-2, -1) / math.sqrt(q.shape[3])
        rows = torch.arange(stop - start)[:, None] + first(start)
        scores = scores.masked_fill(torch.arange(t) > rows, -math.inf)
        piece = scores.softmax(dim=-1) @ v
        pieces.append(piece.detach() if detach else piece)
    return torch.cat(pieces, dim=2)


def q6_whole_table(q, k, v, chunk):
    return _long(q, k, v, q.shape[2])


def q6_own_chunk_only(q, k, v, chunk):
    pieces = [x.split(chunk, dim=2) for x in (q, k, v)]
    return torch.cat([_long(*piece, chunk) for piece in zip(*pieces, strict=True)], dim=2)


def q6_mask_restarts(q, k, v, chunk):
    return _long(q, k, v, chunk, first=lambda start: 0)


def q6_drops_the_rest(q, k, v, chunk):
    t = q.shape[2]
    return _long(q, k, v, chunk, end=max(t // chunk, 1) * chunk)


def q6_not_causal(q, k, v, chunk):
    return _long(q, k, v, chunk, first=lambda start: q.shape[2])


def q6_full_mask_for_every_piece(q, k, v, chunk):
    torch.ones(q.shape[2], q.shape[2]).tril()
    return _long(q, k, v, chunk)


def q6_calls_torch(q, k, v, chunk):
    return F.scaled_dot_product_attention(q, k, v, is_causal=True)


def q6_keeps_all_weights(q, k, v, chunk):
    t, weights = q.shape[2], []
    for start in range(0, t, chunk):
        rows = torch.arange(start, min(start + chunk, t))
        scores = q[:, :, rows] @ k.transpose(-2, -1) / math.sqrt(q.shape[3])
        scores = scores.masked_fill(torch.arange(t) > rows[:, None], -math.inf)
        weights.append(scores.softmax(dim=-1))
    return torch.cat([w @ v for w in weights], dim=2)


def q6_detached(q, k, v, chunk):
    return _long(q, k, v, chunk, detach=True) + 0 * (q + k + v)


def q6_scales_in_place(q, k, v, chunk):
    return _long(q.div_(math.sqrt(q.shape[3])) * math.sqrt(q.shape[3]), k, v, chunk)


def q6_no_scale(q, k, v, chunk):
    return _long(q * math.sqrt(q.shape[3]), k, v, chunk)


def q6_full_mask_indexed(q, k, v, chunk):
    mask, pieces = torch.ones(q.shape[2], q.shape[2], dtype=torch.bool).tril(), []
    for start in range(0, q.shape[2], chunk):
        rows = slice(start, start + chunk)
        scores = q[:, :, rows] @ k.mT / math.sqrt(q.shape[3])
        pieces.append(scores.masked_fill(~mask[rows], -math.inf).softmax(dim=-1) @ v)
    return torch.cat(pieces, dim=2)
