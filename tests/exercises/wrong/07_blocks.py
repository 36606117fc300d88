"""Wrong answers to exercises/07_blocks: each is a mistake people make, and each must fail."""

import copy

import torch
import torch.nn.functional as F

# ------------------------------------------------------------------------------- q1: count a model


def _count(d_ff=1536, matrices=3, kv=128, tables=1, norms=2, last=512, shift=1):
    block = 2 * 512 * 512 + 2 * 512 * kv + matrices * 512 * d_ff + norms * 512 * shift
    return 6 * block + last * shift + tables * 1000 * 512


def _q1(d_ff=1536, n_parameters=None):
    return {"d_ff": d_ff, "n_parameters": _count() if n_parameters is None else n_parameters}


def q1_four_times_d():
    return _q1(2048, _count(d_ff=2048))


def q1_not_rounded():
    return _q1(1365, _count(d_ff=1365))


def q1_rounded_down():
    return _q1(1280, _count(d_ff=1280))


def q1_two_matrices():
    return _q1(n_parameters=_count(matrices=2))


def q1_all_heads_have_keys():
    return _q1(n_parameters=_count(kv=512))


def q1_output_layer_too():
    return _q1(n_parameters=_count(tables=2))


def q1_no_table():
    return _q1(n_parameters=_count(tables=0))


def q1_no_last_norm():
    return _q1(n_parameters=_count(last=0))


def q1_no_norms():
    return _q1(n_parameters=_count(norms=0, last=0))


def q1_norms_with_shift():
    return _q1(n_parameters=_count(shift=2))


def q1_one_block():
    return _q1(n_parameters=_count() // 6)


# ------------------------------------------------------------------------------------- q2: RMSNorm


def _size(x, eps, dim=-1):
    return (x.square().mean(dim=dim, keepdim=True) + eps).sqrt()


def q2_layer_norm(x, weight, eps):
    return F.layer_norm(x.float(), x.shape[-1:], weight.float(), eps=eps).to(x.dtype)


def q2_sum(x, weight, eps):
    return x / (x.square().sum(dim=-1, keepdim=True) + eps).sqrt() * weight


def q2_epsilon_outside(x, weight, eps):
    return x / (_size(x, 0) + eps) * weight


def q2_no_epsilon(x, weight, eps):
    return x / _size(x, 0) * weight


def q2_no_weight(x, weight, eps):
    return x / _size(x, eps)


def q2_one_plus_weight(x, weight, eps):
    return x / _size(x, eps) * (1 + weight)


def q2_over_everything(x, weight, eps):
    return x / (x.square().mean() + eps).sqrt() * weight


def q2_over_tokens(x, weight, eps):
    return x / _size(x, eps, dim=-2) * weight


def q2_no_root(x, weight, eps):
    return x / (x.square().mean(dim=-1, keepdim=True) + eps) * weight


def q2_overflows(x, weight, eps):
    return x / _size(x, eps) * weight


def q2_overflows_with_rsqrt(x, weight, eps):
    return x * torch.rsqrt((x * x).mean(-1, keepdim=True) + eps) * weight


def q2_never_casts_back(x, weight, eps):
    wide = x.float() if x.dtype == torch.float16 else x
    return wide / _size(wide, eps) * weight.to(wide.dtype)


def q2_third_axis(x, weight, eps):
    wide = x.float() if x.dtype == torch.float16 else x
    return (wide / _size(wide, eps, dim=2) * weight).to(x.dtype)


def q2_changes_its_input(x, weight, eps):
    wide = x.float() if x.dtype == torch.float16 else x
    x.copy_(wide / _size(wide, eps) * weight)
    return x


def q2_returns_nothing(x, weight, eps):
    x / _size(x, eps) * weight


def q2_stays_in_float32(x, weight, eps):
    return F.rms_norm(x.float(), x.shape[-1:], weight.float(), eps)


def q2_through_float32(x, weight, eps):
    return F.rms_norm(x.float(), x.shape[-1:], weight.float(), eps).to(x.dtype)


def q2_axis_dropped(x, weight, eps):
    return (x / _size(x, eps) * weight).mean(dim=-1)


# -------------------------------------------------------------------------------------- q3: SwiGLU


def q3_gates_swapped(x, gate, up, down):
    return (x @ gate.T * F.silu(x @ up.T)) @ down.T


def q3_sigmoid(x, gate, up, down):
    return ((x @ gate.T).sigmoid() * (x @ up.T)) @ down.T


def q3_gelu(x, gate, up, down):
    return (F.gelu(x @ gate.T) * (x @ up.T)) @ down.T


def q3_relu(x, gate, up, down):
    return (F.relu(x @ gate.T) * (x @ up.T)) @ down.T


def q3_adds(x, gate, up, down):
    return (F.silu(x @ gate.T) + x @ up.T) @ down.T


def q3_no_gate(x, gate, up, down):
    return F.silu(x @ gate.T) @ down.T


def q3_no_activation(x, gate, up, down):
    return (x @ gate.T * (x @ up.T)) @ down.T


def q3_silu_of_the_product(x, gate, up, down):
    return F.silu(x @ gate.T * (x @ up.T)) @ down.T


def q3_silu_twice(x, gate, up, down):
    return (F.silu(x @ gate.T) * F.silu(x @ up.T)) @ down.T


def q3_not_back_down(x, gate, up, down):
    return F.silu(x @ gate.T) * (x @ up.T)


def q3_changes_its_input(x, gate, up, down):
    out = (F.silu(x @ gate.T) * (x @ up.T)) @ down.T
    return x.copy_(out)


def q3_half_silu(x, gate, up, down):
    a = x @ gate.T
    return (0.5 * a * torch.sigmoid(a) * (x @ up.T)) @ down.T


# ----------------------------------------------------------------------------- q4: find the bug


def q4_not_repaired(x, attention, ffn, norm_1, norm_2):
    x = norm_1(x)
    x = x + attention(x)
    return x + ffn(norm_2(x))


def q4_normalized_twice(x, attention, ffn, norm_1, norm_2):
    x = norm_1(x)
    x = x + attention(norm_1(x))
    return x + ffn(norm_2(x))


def q4_second_half_forgets(x, attention, ffn, norm_1, norm_2):
    x = x + attention(norm_1(x))
    x = norm_2(x)
    return x + ffn(x)


def q4_changes_its_input(x, attention, ffn, norm_1, norm_2):
    x += attention(norm_1(x))
    return x + ffn(norm_2(x))


def q4_returns_nothing(x, attention, ffn, norm_1, norm_2):
    x = x + attention(norm_1(x))
    x = x + ffn(norm_2(x))


def q4_post_norm(x, attention, ffn, norm_1, norm_2):
    x = norm_1(x + attention(x))
    return norm_2(x + ffn(x))


def q4_no_residual(x, attention, ffn, norm_1, norm_2):
    return ffn(norm_2(attention(norm_1(x))))


def q4_last_not_added(x, attention, ffn, norm_1, norm_2):
    return ffn(norm_2(x + attention(norm_1(x))))


def q4_one_norm_twice(x, attention, ffn, norm_1, norm_2):
    x = x + attention(norm_1(x))
    return x + ffn(norm_1(x))


def q4_ffn_reads_raw(x, attention, ffn, norm_1, norm_2):
    x = x + attention(norm_1(x))
    return x + ffn(x)


def q4_attention_reads_raw(x, attention, ffn, norm_1, norm_2):
    x = x + attention(x)
    return x + ffn(norm_2(x))


def q4_parallel(x, attention, ffn, norm_1, norm_2):
    return x + attention(norm_1(x)) + ffn(norm_2(x))


def q4_attention_lost(x, attention, ffn, norm_1, norm_2):
    return x + ffn(norm_2(x))


def q4_second_stream_normalized(x, attention, ffn, norm_1, norm_2):
    x = norm_2(x + attention(norm_1(x)))
    return x + ffn(x)


# ------------------------------------------------------------------------ q5: scaled initialization


def _scale(blocks, factor, names):
    with torch.no_grad():
        for block in blocks:
            for name in names:
                block.get_parameter(name).mul_(factor)


_WRITERS = ("attention.output.weight", "ffn.down.weight")


def q5_number_of_blocks(blocks):
    _scale(blocks, len(blocks) ** -0.5, _WRITERS)


def q5_no_root(blocks):
    _scale(blocks, 1 / (2 * len(blocks)), _WRITERS)


def q5_grows(blocks):
    _scale(blocks, (2 * len(blocks)) ** 0.5, _WRITERS)


def q5_attention_only(blocks):
    _scale(blocks, (2 * len(blocks)) ** -0.5, _WRITERS[:1])


def q5_ffn_only(blocks):
    _scale(blocks, (2 * len(blocks)) ** -0.5, _WRITERS[1:])


def q5_every_matrix(blocks):
    names = [name for name, p in blocks[0].named_parameters() if p.dim() == 2]
    _scale(blocks, (2 * len(blocks)) ** -0.5, names)


def q5_first_matrices(blocks):
    _scale(blocks, (2 * len(blocks)) ** -0.5, ("attention.value.weight", "ffn.up.weight"))


def q5_biases_too(blocks):
    names = [name.replace("weight", "bias") for name in _WRITERS]
    _scale(blocks, (2 * len(blocks)) ** -0.5, [*_WRITERS, *names])


def q5_scales_a_copy(blocks):
    q = copy.deepcopy(blocks)
    _scale(q, (2 * len(blocks)) ** -0.5, _WRITERS)
    return q


def q5_by_place(blocks):
    for i, block in enumerate(blocks):
        _scale([block], (2 * (i + 1)) ** -0.5, _WRITERS)


def q5_frozen(blocks):
    _scale(blocks, (2 * len(blocks)) ** -0.5, _WRITERS)
    for block in blocks:
        block.requires_grad_(False)


# ------------------------------------------------------------------------------------ q6: DeepNorm


def _factors(n):
    return (2 * n) ** 0.25, (8 * n) ** -0.25


def _deep(x, part, norm, alpha):
    return norm(alpha * x + part(x))


def _q6(factors=_factors, deep=_deep):
    return {"factors": factors, "deep": deep}


def q6_square_root():
    return _q6(lambda n: ((2 * n) ** 0.5, (8 * n) ** -0.5))


def q6_swapped():
    return _q6(lambda n: _factors(n)[::-1])


def q6_eight_in_alpha():
    return _q6(lambda n: ((8 * n) ** 0.25, (2 * n) ** -0.25))


def q6_beta_above_one():
    return _q6(lambda n: ((2 * n) ** 0.25, (8 * n) ** 0.25))


def q6_same_number_twice():
    return _q6(lambda n: ((2 * n) ** 0.25, (2 * n) ** -0.25))


def q6_decoder_of_both():
    return _q6(lambda n: ((3 * n) ** 0.25, (12 * n) ** -0.25))


def q6_no_alpha():
    return _q6(deep=lambda x, part, norm, alpha: norm(x + part(x)))


def q6_alpha_on_the_update():
    return _q6(deep=lambda x, part, norm, alpha: norm(x + alpha * part(x)))


def q6_alpha_on_both():
    return _q6(deep=lambda x, part, norm, alpha: norm(alpha * (x + part(x))))


def q6_pre_norm():
    return _q6(deep=lambda x, part, norm, alpha: alpha * x + part(norm(x)))


def q6_not_normalized():
    return _q6(deep=lambda x, part, norm, alpha: alpha * x + part(x))


def q6_part_reads_alpha_x():
    return _q6(deep=lambda x, part, norm, alpha: norm(alpha * x + part(alpha * x)))


def q6_norm_of_the_update():
    return _q6(deep=lambda x, part, norm, alpha: alpha * x + norm(part(x)))


def q6_constant():
    return _q6(lambda n: _factors(8))
