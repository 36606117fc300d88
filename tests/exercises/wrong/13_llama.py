"""Wrong answers to exercises/13_llama: each is a mistake people make, and each must fail."""

import math

import torch

# ------------------------------------------------------------------------------ q1: count a LLaMA


def _count(kv=256, matrices=3, tables=2, norms=2, last=2048, narrow=2, shift=1):
    block = 2 * 2048 * 2048 + narrow * 2048 * kv + matrices * 2048 * 5632 + norms * 2048 * shift
    return 22 * block + last * shift + tables * 32000 * 2048


def _q1(n_parameters=None, cache_bytes=2048 * 22 * 2 * 4 * 64 * 2):
    return {
        "n_parameters": _count() if n_parameters is None else n_parameters,
        "cache_bytes": cache_bytes,
    }


def q1_tied():
    return _q1(_count(tables=1))


def q1_no_tables():
    return _q1(_count(tables=0))


def q1_every_head_has_keys():
    return _q1(_count(kv=2048))


def q1_one_narrow_matrix():
    return _q1(_count(narrow=1))


def q1_two_matrices_in_the_gated_layer():
    return _q1(_count(matrices=2))


def q1_no_last_norm():
    return _q1(_count(last=0))


def q1_no_norms():
    return _q1(_count(norms=0, last=0))


def q1_norms_with_shift():
    return _q1(_count(shift=2))


def q1_one_block():
    return _q1(_count() // 22)


def q1_keys_only():
    return _q1(cache_bytes=2048 * 22 * 4 * 64 * 2)


def q1_four_bytes():
    return _q1(cache_bytes=2048 * 22 * 2 * 4 * 64 * 4)


def q1_all_heads_cached():
    return _q1(cache_bytes=2048 * 22 * 2 * 32 * 64 * 2)


def q1_one_token():
    return _q1(cache_bytes=22 * 2 * 4 * 64 * 2)


def q1_one_block_cached():
    return _q1(cache_bytes=2048 * 2 * 4 * 64 * 2)


def q1_zero():
    return _q1(0, 0)


# ------------------------------------------------------------------------- q2: share key heads


def _attend(q, k, v, scale=None, causal=True):
    scores = q @ k.transpose(-2, -1) * (q.shape[-1] ** -0.5 if scale is None else scale)
    if causal:
        hidden = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1)
        scores = scores.masked_fill(hidden, -math.inf)
    return scores.softmax(-1) @ v


def _near(q, *given):
    return [y.repeat_interleave(q.shape[0] // y.shape[0], dim=0) for y in given]


def q2_tiled(q, k, v):
    share = q.shape[0] // k.shape[0]
    return _attend(q, k.repeat(share, 1, 1), v.repeat(share, 1, 1))


def q2_not_scaled(q, k, v):
    return _attend(q, *_near(q, k, v), scale=1.0)


def q2_scaled_by_p(q, k, v):
    return _attend(q, *_near(q, k, v), scale=1 / q.shape[-1])


def q2_scaled_by_width(q, k, v):
    return _attend(q, *_near(q, k, v), scale=(q.shape[0] * q.shape[-1]) ** -0.5)


def q2_not_causal(q, k, v):
    return _attend(q, *_near(q, k, v), causal=False)


def q2_values_tiled(q, k, v):
    return _attend(q, *_near(q, k), v.repeat(q.shape[0] // v.shape[0], 1, 1))


def q2_multi_query(q, k, v):
    return _attend(q, k[:1].expand(len(q), -1, -1), v[:1].expand(len(q), -1, -1))


def q2_three_share(q, k, v):
    return _attend(q, k.repeat_interleave(3, dim=0), v.repeat_interleave(3, dim=0))


def q2_hides_itself(q, k, v):
    k, v = _near(q, k, v)
    scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])
    hidden = torch.ones(scores.shape[-2:], dtype=torch.bool).triu()
    hidden[0, 0] = False
    return scores.masked_fill(hidden, -math.inf).softmax(-1) @ v


def q2_softmax_over_queries(q, k, v):
    k, v = _near(q, k, v)
    scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])
    hidden = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1)
    return scores.masked_fill(hidden, -math.inf).softmax(-2) @ v


def q2_mask_the_wrong_way(q, k, v):
    k, v = _near(q, k, v)
    scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])
    hidden = torch.ones(scores.shape[-2:], dtype=torch.bool).tril(-1)
    return scores.masked_fill(hidden, -math.inf).softmax(-1) @ v


def q2_zeros_after_the_softmax(q, k, v):
    k, v = _near(q, k, v)
    scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])
    return scores.softmax(-1).tril() @ v


def q2_zeros_before_the_softmax(q, k, v):
    k, v = _near(q, k, v)
    scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])
    return scores.tril().softmax(-1) @ v


def q2_changes_its_input(q, k, v):
    out = _attend(q, *_near(q, k, v))
    q.mul_(q.shape[-1] ** -0.5)
    return out


def q2_returns_nothing(q, k, v):
    _attend(q, *_near(q, k, v))


def q2_heads_behind_tokens(q, k, v):
    return _attend(q, *_near(q, k, v)).transpose(0, 1)


# ------------------------------------------------------------------------- q3: rows of a GGUF


def _heads(weight, n_heads):
    return weight.view(n_heads, -1, weight.shape[1])


def q3_nothing_moves(weight, n_heads):
    return weight.clone()


def q3_all_heads_together(weight, n_heads):
    return torch.cat([weight[0::2], weight[1::2]])


def q3_way_back(weight, n_heads):
    heads = _heads(weight, n_heads)
    half = heads.shape[1] // 2
    return torch.stack([heads[:, :half], heads[:, half:]], dim=2).reshape(weight.shape)


def q3_odd_first(weight, n_heads):
    heads = _heads(weight, n_heads)
    return torch.cat([heads[:, 1::2], heads[:, 0::2]], dim=1).reshape(weight.shape)


def q3_heads_taken_from_the_columns(weight, n_heads):
    heads = weight.view(-1, n_heads, weight.shape[1]).transpose(0, 1)
    return torch.cat([heads[:, 0::2], heads[:, 1::2]], dim=1).reshape(weight.shape)


def q3_two_heads_always(weight, n_heads):
    heads = _heads(weight, 2)
    return torch.cat([heads[:, 0::2], heads[:, 1::2]], dim=1).reshape(weight.shape)


def q3_columns_move(weight, n_heads):
    return torch.cat([weight[:, 0::2], weight[:, 1::2]], dim=1)


def q3_keeps_the_head_axis(weight, n_heads):
    heads = _heads(weight, n_heads)
    return torch.cat([heads[:, 0::2], heads[:, 1::2]], dim=1)


def q3_in_place(weight, n_heads):
    heads = _heads(weight, n_heads)
    return weight.copy_(torch.cat([heads[:, 0::2], heads[:, 1::2]], dim=1).reshape(weight.shape))


def q3_reversed(weight, n_heads):
    return weight.flip(0)


# ------------------------------------------------------------------------------ q4: Qwen3's queries


def _split(q, n_heads):
    return q.view(q.shape[0], n_heads, -1).transpose(0, 1)


def _norm(q, eps):
    return q / (q.square().mean(-1, keepdim=True) + eps).sqrt()


def q4_not_repaired(x, weight, scale, turn, n_heads, eps=1e-6):
    return turn(_split(_norm(x @ weight.T, eps), n_heads)) * scale


def q4_mean_over_all_heads(x, weight, scale, turn, n_heads, eps=1e-6):
    return turn(_split(_norm(x @ weight.T, eps), n_heads) * scale)


def q4_scale_after_rotation(x, weight, scale, turn, n_heads, eps=1e-6):
    return turn(_norm(_split(x @ weight.T, n_heads), eps)) * scale


def q4_norm_after_rotation(x, weight, scale, turn, n_heads, eps=1e-6):
    return _norm(turn(_split(x @ weight.T, n_heads)), eps) * scale


def q4_no_norm(x, weight, scale, turn, n_heads, eps=1e-6):
    return turn(_split(x @ weight.T, n_heads) * scale)


def q4_no_scale(x, weight, scale, turn, n_heads, eps=1e-6):
    return turn(_norm(_split(x @ weight.T, n_heads), eps))


def q4_no_rotation(x, weight, scale, turn, n_heads, eps=1e-6):
    return _norm(_split(x @ weight.T, n_heads), eps) * scale


def q4_no_epsilon(x, weight, scale, turn, n_heads, eps=1e-6):
    return turn(_norm(_split(x @ weight.T, n_heads), 0.0) * scale)


def q4_not_transposed(x, weight, scale, turn, n_heads, eps=1e-6):
    return turn(_norm((x @ weight.T).view(n_heads, len(x), -1), eps) * scale)


def q4_transposed_after_the_rotation(x, weight, scale, turn, n_heads, eps=1e-6):
    q = (x @ weight.T).view(len(x), n_heads, -1)
    return turn(_norm(q, eps) * scale).transpose(0, 1)


def q4_epsilon_outside_the_root(x, weight, scale, turn, n_heads, eps=1e-6):
    q = _split(x @ weight.T, n_heads)
    return turn(q / (q.square().mean(-1, keepdim=True).sqrt() + eps) * scale)


def q4_sum_of_squares(x, weight, scale, turn, n_heads, eps=1e-6):
    q = _split(x @ weight.T, n_heads)
    return turn(q / (q.square().sum(-1, keepdim=True) + eps).sqrt() * scale)


def q4_one_plus_scale(x, weight, scale, turn, n_heads, eps=1e-6):
    return turn(_norm(_split(x @ weight.T, n_heads), eps) * (1 + scale))


def q4_layer_norm(x, weight, scale, turn, n_heads, eps=1e-6):
    q = _split(x @ weight.T, n_heads)
    return turn(torch.nn.functional.layer_norm(q, scale.shape, scale, eps=eps))


def q4_three_heads_always(x, weight, scale, turn, n_heads, eps=1e-6):
    return turn(_norm(_split(x @ weight.T, 3), eps) * scale) if len(weight) == 18 else x[None]


def q4_not_split(x, weight, scale, turn, n_heads, eps=1e-6):
    return _norm(x @ weight.T, eps)


def q4_changes_its_input(x, weight, scale, turn, n_heads, eps=1e-6):
    out = turn(_norm(_split(x @ weight.T, n_heads), eps) * scale)
    x.zero_()
    return out


# ------------------------------------------------------------------------------ q5: a fused matrix


def _groups(fused, h, g):
    return fused.view(g, h // g + 2, -1, fused.shape[1])


def _flat(*parts):
    return tuple(y.reshape(-1, y.shape[-1]) for y in parts)


def q5_side_by_side(fused, h, g):
    p = fused.shape[0] // (h + 2 * g)
    return fused.split([h * p, g * p, g * p])


def q5_key_and_value_first(fused, h, g):
    groups = _groups(fused, h, g)
    return _flat(groups[:, 2:], groups[:, 0], groups[:, 1])


def q5_values_before_keys(fused, h, g):
    groups = _groups(fused, h, g)
    return _flat(groups[:, :-2], groups[:, -1], groups[:, -2])


def q5_heads_in_another_order(fused, h, g):
    groups = _groups(fused, h, g)
    return _flat(groups[:, :-2].transpose(0, 1), groups[:, -2], groups[:, -1])


def q5_keys_repeated(fused, h, g):
    groups = _groups(fused, h, g)
    q, k, v = _flat(groups[:, :-2], groups[:, -2], groups[:, -1])
    return q, k.repeat(h // g, 1), v.repeat(h // g, 1)


def q5_two_groups_always(fused, h, g):
    groups = _groups(fused, 6, 2) if fused.shape[0] == 30 else _groups(fused, 2, 2)
    return _flat(groups[:, :-2], groups[:, -2], groups[:, -1])


def q5_one_matrix(fused, h, g):
    return torch.cat(_flat(*(_groups(fused, h, g)[:, i] for i in range(h // g + 2))))


def q5_bloom_always(fused, h, g):
    heads = fused.view(-1, 3, fused.shape[0] // (h + 2 * g), fused.shape[1]) if h == g else None
    return _flat(*heads.unbind(1)) if h == g else q5_side_by_side(fused, h, g)


def q5_returns_nothing(fused, h, g):
    _groups(fused, h, g)


def q5_changes_its_input(fused, h, g):
    groups = _groups(fused, h, g)
    out = tuple(y.clone() for y in _flat(groups[:, :-2], groups[:, -2], groups[:, -1]))
    fused.zero_()
    return out


# ------------------------------------------------------------------------------- q6: a Q4_1 block


def _parts(raw):
    blocks = raw.view(-1, 20)
    d, m = blocks[:, :4].contiguous().view(torch.float16).float().split(1, dim=1)
    return d, m, blocks[:, 4:] & 15, blocks[:, 4:] >> 4


def q6_neighbors(raw):
    d, m, low, high = _parts(raw)
    return (d * torch.stack([low, high], dim=2).flatten(1) + m).flatten()


def q6_high_first(raw):
    d, m, low, high = _parts(raw)
    return (d * torch.cat([high, low], dim=1) + m).flatten()


def q6_step_and_minimum_exchanged(raw):
    d, m, low, high = _parts(raw)
    return (m * torch.cat([low, high], dim=1) + d).flatten()


def q6_no_minimum(raw):
    d, _, low, high = _parts(raw)
    return (d * torch.cat([low, high], dim=1)).flatten()


def q6_as_q4_0(raw):
    d, _, low, high = _parts(raw)
    return (d * (torch.cat([low, high], dim=1).float() - 8)).flatten()


def q6_minimum_subtracted(raw):
    d, m, low, high = _parts(raw)
    return (d * torch.cat([low, high], dim=1) - m).flatten()


def q6_minimum_inside(raw):
    d, m, low, high = _parts(raw)
    return (d * (torch.cat([low, high], dim=1) + m)).flatten()


def q6_first_block_for_all(raw):
    d, m, low, high = _parts(raw)
    return (d[0] * torch.cat([low, high], dim=1) + m[0]).flatten()


def q6_one_block_only(raw):
    d, m, low, high = _parts(raw)
    return (d * torch.cat([low, high], dim=1) + m)[0]


def q6_float16(raw):
    d, m, low, high = _parts(raw)
    return (d.half() * torch.cat([low, high], dim=1) + m.half()).flatten().float()


def q6_stays_float16(raw):
    d, m, low, high = _parts(raw)
    return (d.half() * torch.cat([low, high], dim=1) + m.half()).flatten()


def q6_keeps_rows(raw):
    d, m, low, high = _parts(raw)
    return d * torch.cat([low, high], dim=1) + m


def q6_low_half_twice(raw):
    d, m, low, _ = _parts(raw)
    return (d * torch.cat([low, low], dim=1) + m).flatten()
