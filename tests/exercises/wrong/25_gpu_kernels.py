"""Wrong answers to exercises/25_gpu_kernels: each is a mistake people make, and each must fail."""

import torch

from minillm.kernels.dispatch import jit, power_of_two, tl

# ------------------------------------------------------------------- q1: what a kernel must cost

_TENSOR = 8192 * 4096 * 2


def _q1(n_bytes=4 * _TENSOR, least_us=None, ridge=150.0, warps=16):
    least_us = 4 * _TENSOR / 2e12 * 1e6 if least_us is None else least_us
    return {"n_bytes": n_bytes, "least_us": least_us, "ridge": ridge, "warps": warps}


def q1_sum_is_not_returned():
    return _q1(n_bytes=3 * _TENSOR)


def q1_only_what_goes_out():
    return _q1(n_bytes=2 * _TENSOR)


def q1_four_bytes_a_number():
    return _q1(n_bytes=8 * _TENSOR)


def q1_numbers_for_bytes():
    return _q1(n_bytes=2 * _TENSOR)


def q1_seconds():
    return _q1(least_us=4 * _TENSOR / 2e12)


def q1_milliseconds():
    return _q1(least_us=4 * _TENSOR / 2e12 * 1e3)


def q1_read_only():
    return _q1(least_us=2 * _TENSOR / 2e12 * 1e6)


def q1_ridge_upside_down():
    return _q1(ridge=2 / 300)


def q1_ridge_for_two_bytes():
    return _q1(ridge=300.0)


def q1_broken_blocks():
    return _q1(warps=20)


def q1_no_parts():
    return _q1(warps=21)


def q1_rounded_up():
    return _q1(warps=24)


def q1_full():
    return _q1(warps=64)


def q1_blocks():
    return _q1(warps=2)


def q1_with_the_weight():
    return _q1(n_bytes=4 * _TENSOR + 4096 * 2)


def q1_one_part():
    return _q1(warps=5)


# ------------------------------------------------------------------------------------ q2: softmax


@jit
def _softmax(x_ptr, y_ptr, stride, d, BLOCK: tl.constexpr, WRONG: tl.constexpr):
    row, columns = tl.program_id(0), tl.arange(0, BLOCK)
    inside = columns < d
    if WRONG == "mask":
        inside = columns <= d
    if WRONG == "short":
        inside = columns < d - 1
    if WRONG == "stride":
        stride = d
    if WRONG == "block":
        stride = BLOCK
    if WRONG == "zeros":
        x = tl.load(x_ptr + row * stride + columns, inside, 0.0).to(tl.float32)
    elif WRONG == "load":
        x = tl.load(x_ptr + row * stride + columns).to(tl.float32)
        x = tl.where(inside, x, -float("inf"))
    else:
        x = tl.load(x_ptr + row * stride + columns, inside, -float("inf")).to(tl.float32)
    top = tl.max(x, 0)
    if WRONG == "positive":
        top = tl.maximum(top, 0.0)
    e = tl.exp(x) if WRONG == "max" else tl.exp(x - top)
    total = tl.sum(e, 0)
    if WRONG == "half":
        total = tl.sum(e.to(tl.float16), 0).to(tl.float32)
    if WRONG == "rows":
        row = 0
    if WRONG == "store":
        tl.store(y_ptr + row * d + columns, e / total)
    elif WRONG == "out":
        tl.store(y_ptr + row * stride + columns, e / total, inside)
    else:
        tl.store(y_ptr + row * d + columns, e / total, inside)


def _q2(wrong):
    def softmax(x):
        n, d = x.shape
        y = torch.zeros(n, d, dtype=x.dtype)
        _softmax[(n,)](x, y, x.stride(0), d, BLOCK=power_of_two(d), WRONG=wrong)
        return y

    return softmax


q2_no_maximum = _q2("max")
q2_zeros_outside = _q2("zeros")
q2_mask_too_wide = _q2("mask")
q2_mask_too_narrow = _q2("short")
q2_ignores_the_stride = _q2("stride")
q2_rows_at_multiples_of_the_block = _q2("block")
q2_sum_in_half = _q2("half")
q2_load_without_mask = _q2("load")
q2_store_without_mask = _q2("store")
q2_stores_with_the_stride_of_x = _q2("out")
q2_every_program_the_first_row = _q2("rows")
q2_maximum_at_least_zero = _q2("positive")


def q2_pytorch_does_it(x):
    return x.float().softmax(-1).to(x.dtype)


def q2_pytorch_does_it_beside_a_kernel(x):
    q2_zeros_outside(x)
    return x.float().softmax(-1).to(x.dtype)


@jit
def _half_softmax(x_ptr, y_ptr, stride, d, BLOCK: tl.constexpr):
    row, columns = tl.program_id(0), tl.arange(0, BLOCK)
    x = tl.load(x_ptr + row * stride + columns, columns < d, -float("inf"))
    e = tl.exp(x - tl.max(x, 0)).to(x.dtype)
    total = tl.sum(e, 0).to(x.dtype)
    tl.store(y_ptr + row * d + columns, (e / total).to(x.dtype), columns < d)


def q2_stays_in_half(x):
    n, d = x.shape
    y = torch.empty(n, d, dtype=x.dtype)
    _half_softmax[(n,)](x, y, x.stride(0), d, BLOCK=power_of_two(d))
    return y


# ------------------------------------------------------------------------ q3: back through RMSNorm


@jit
def _norm(x_ptr, w_ptr, dy_ptr, dx_ptr, d, eps, BLOCK: tl.constexpr, WRONG: tl.constexpr):
    row, columns = tl.program_id(0), tl.arange(0, BLOCK)
    inside = columns <= d if WRONG == "mask" else columns < d
    x = tl.load(x_ptr + row * d + columns, inside, 0.0).to(tl.float32)
    dy = tl.load(dy_ptr + row * d + columns, inside, 0.0).to(tl.float32)
    g = dy if WRONG == "weight" else dy * tl.load(w_ptr + columns, columns < d, 0.0).to(tl.float32)
    first = BLOCK if WRONG == "block" or WRONG == "root" else d
    second = BLOCK if WRONG == "block" or WRONG == "mean" else d
    second = 1 if WRONG == "sum" else second
    squares = tl.sum(x * x, 0) / first
    r = 1 / tl.sqrt(squares) if WRONG == "eps" else 1 / tl.sqrt(squares + eps)
    if WRONG == "outside":
        r = 1 / (tl.sqrt(squares) + eps)
    normal = x * r
    if WRONG == "half":
        dot = tl.sum((normal * g).to(tl.float16), 0).to(tl.float32) / second
    else:
        dot = tl.sum(normal * g, 0) / second
    dx = r * (g - normal * dot)
    if WRONG == "first":
        dx = r * g
    if WRONG == "sign":
        dx = r * (g + normal * dot)
    if WRONG == "normal":
        dx = r * (g - x * dot)
    if WRONG == "store":
        tl.store(dx_ptr + row * d + columns, dx)
    else:
        tl.store(dx_ptr + row * d + columns, dx, inside)


def _q3(wrong):
    def norm_backward(x, w, dy, eps):
        n, d = x.shape
        dx = torch.zeros_like(x)
        _norm[(n,)](x, w, dy, dx, d, eps, BLOCK=power_of_two(d), WRONG=wrong)
        return dx

    return norm_backward


q3_no_weight = _q3("weight")
q3_means_over_the_block = _q3("block")
q3_mean_over_the_block = _q3("mean")
q3_square_mean_over_the_block = _q3("root")
q3_sum_for_mean = _q3("sum")
q3_no_epsilon = _q3("eps")
q3_epsilon_outside = _q3("outside")
q3_only_the_first_term = _q3("first")
q3_second_term_added = _q3("sign")
q3_x_not_normalized = _q3("normal")
q3_mask_too_wide = _q3("mask")
q3_store_without_mask = _q3("store")
q3_sum_in_half = _q3("half")


def q3_pytorch_does_it(x, w, dy, eps):
    x = x.clone().requires_grad_()
    torch.nn.functional.rms_norm(x, x.shape[-1:], w, eps).backward(dy)
    return x.grad


def q3_pytorch_does_it_beside_a_kernel(x, w, dy, eps):
    q3_no_weight(x, w, dy, eps)
    normal = x * (x.square().mean(-1, keepdim=True) + eps).rsqrt()
    g = w * dy
    return (g - normal * (normal * g).mean(-1, keepdim=True)) * normal / x


@jit
def _half_norm(x_ptr, w_ptr, dy_ptr, dx_ptr, d, eps, BLOCK: tl.constexpr):
    row, columns = tl.program_id(0), tl.arange(0, BLOCK)
    inside = columns < d
    x = tl.load(x_ptr + row * d + columns, inside, 0.0)
    dy = tl.load(dy_ptr + row * d + columns, inside, 0.0)
    g = dy * tl.load(w_ptr + columns, inside, 0.0)
    r = 1 / tl.sqrt(tl.sum(x * x, 0) / d + eps)
    normal = x * r
    dx = r * (g - normal * (tl.sum(normal * g, 0) / d))
    tl.store(dx_ptr + row * d + columns, dx, inside)


def q3_never_widens(x, w, dy, eps):
    n, d = x.shape
    dx = torch.empty_like(x)
    _half_norm[(n,)](x, w, dy, dx, d, eps, BLOCK=power_of_two(d))
    return dx


# ------------------------------------------------------------------- q4: rotate neighbors, in place


@jit
def _rotate(x_ptr, cos_ptr, sin_ptr, f, sign, F: tl.constexpr, WRONG: tl.constexpr):
    row, pair = tl.program_id(0), tl.arange(0, F)
    inside = pair <= f if WRONG == "mask" else pair < f
    angle = pair if WRONG == "angle" else row * f + pair
    cos, sin = tl.load(cos_ptr + angle, inside, 0.0), tl.load(sin_ptr + angle, inside, 0.0)
    if WRONG == "cosine":
        cos *= sign
    elif WRONG != "sign":
        sin *= sign
    if WRONG == "way":
        sin = -sin
    at = x_ptr + row * 2 * f + 2 * pair
    gap = 1
    if WRONG == "halves":
        at = x_ptr + row * 2 * f + pair
        gap = f
    if WRONG == "row":
        at = x_ptr + row * f + 2 * pair
    a, b = tl.load(at, inside, 0.0), tl.load(at + gap, inside, 0.0)
    tl.store(at, a * cos - b * sin, inside)
    if WRONG == "order":
        a = tl.load(at, inside, 0.0)
    if WRONG == "once":
        return
    tl.store(at + gap, a * sin + b * cos, inside)


def _q4(wrong):
    def rotate(x, cos, sin, sign=1.0):
        f = cos.shape[1]
        _rotate[(len(x),)](x, cos, sin, f, sign, F=power_of_two(f), WRONG=wrong)
        return x

    return rotate


q4_halves = _q4("halves")
q4_the_other_way = _q4("way")
q4_ignores_the_sign = _q4("sign")
q4_angles_of_the_first_row = _q4("angle")
q4_new_a_for_b = _q4("order")
q4_mask_too_wide = _q4("mask")
q4_rows_overlap = _q4("row")
q4_second_number_left = _q4("once")


q4_sign_on_the_cosine = _q4("cosine")


def q4_not_in_place(x, cos, sin, sign=1.0):
    return _q4("")(x.clone(), cos, sin, sign)


def q4_a_new_tensor_and_zeros(x, cos, sin, sign=1.0):
    out = _q4("")(x.clone(), cos, sin, sign)
    x.zero_()
    return out


def q4_pytorch_does_it(x, cos, sin, sign=1.0):
    a, b = x[:, ::2].clone(), x[:, 1::2].clone()
    x[:, ::2], x[:, 1::2] = a * cos - b * sin * sign, a * sin * sign + b * cos
    return x


# ----------------------------------------------------------------------- q5: the loss of a long row


@jit
def _loss(x_ptr, target_ptr, loss_ptr, v, BLOCK: tl.constexpr, WRONG: tl.constexpr):
    row, lane = tl.program_id(0), tl.arange(0, BLOCK)
    target = tl.load(target_ptr + row)
    top = tl.max(tl.full([BLOCK], 0.0 if WRONG == "zero" else -3.4e38, tl.float32), 0)
    total = tl.sum(tl.zeros([BLOCK], tl.float32), 0)
    end = v - BLOCK + 1 if WRONG == "last" else v
    for first in range(0, BLOCK if WRONG == "first" else end, BLOCK):
        inside = first + lane <= v if WRONG == "mask" else first + lane < v
        fill = 0.0 if WRONG == "fill" else -float("inf")
        x = tl.load(x_ptr + row * v + first + lane, inside, fill).to(tl.float32)
        higher = tl.maximum(top, tl.max(x, 0))
        if WRONG == "max":
            higher = tl.max(tl.zeros([BLOCK], tl.float32), 0)
            top = higher
        shrink = tl.exp(top - higher)
        if WRONG == "rescale":
            shrink = 1.0
        if WRONG == "upward":
            shrink = tl.exp(higher - top)
        added = tl.sum(tl.exp(x - higher), 0)
        total = total * shrink + added
        if WRONG == "only":
            total = added
        if WRONG == "half":
            total = total.to(tl.float16).to(tl.float32)
        top = higher
    ignored = (target == -100) & (WRONG != "ignore")
    chosen = tl.load(x_ptr + row * v + tl.maximum(target, 0)).to(tl.float32)
    loss = top + tl.log(total) - chosen
    if WRONG == "target":
        loss += chosen
    if WRONG == "negative":
        loss = -loss
    if WRONG == "log":
        loss = tl.log(total) - chosen
    tl.store(loss_ptr + row, tl.where(ignored, 0.0, loss))


def _q5(wrong):
    def losses(x, targets, block=16):
        out = torch.zeros(len(x))
        _loss[(len(x),)](x, targets, out, x.shape[1], BLOCK=block, WRONG=wrong)
        return out

    return losses


def q5_pytorch_does_it(x, targets, block=16):
    return torch.nn.functional.cross_entropy(x, targets, reduction="none").float()


def q5_one_block(x, targets, block=16):
    return _q5("")(x, targets, power_of_two(x.shape[1]))


q5_maximum_starts_at_zero = _q5("zero")
q5_no_maximum = _q5("max")
q5_no_rescaling = _q5("rescale")
q5_rescales_upward = _q5("upward")
q5_last_block_left_out = _q5("last")
q5_first_block_alone = _q5("first")
q5_last_block_alone = _q5("only")
q5_zeros_outside = _q5("fill")
q5_mask_too_wide = _q5("mask")
q5_sum_in_half = _q5("half")
q5_target_not_ignored = _q5("ignore")
q5_no_target = _q5("target")
q5_negative = _q5("negative")
q5_maximum_not_added_back = _q5("log")


@jit
def _stray_loss(x_ptr, target_ptr, loss_ptr, v, BLOCK: tl.constexpr):
    row, lane = tl.program_id(0), tl.arange(0, BLOCK)
    target = tl.load(target_ptr + row)
    top = tl.max(tl.full([BLOCK], -3.4e38, tl.float32), 0)
    for first in range(0, v, BLOCK):  # one pass for the maximum, one for the sum
        x = tl.load(x_ptr + row * v + first + lane, first + lane < v, -float("inf"))
        top = tl.maximum(top, tl.max(x.to(tl.float32), 0))
    total = tl.sum(tl.zeros([BLOCK], tl.float32), 0)
    for first in range(0, v, BLOCK):
        x = tl.load(x_ptr + row * v + first + lane, first + lane < v, -float("inf"))
        total += tl.sum(tl.exp(x.to(tl.float32) - top), 0)
    chosen = tl.load(x_ptr + row * v + target, target != -100, 0.0).to(tl.float32)
    tl.store(loss_ptr + row, tl.where(target == -100, 0.0, top + tl.log(total) - chosen))


def q5_reads_twice(x, targets, block=16):
    out = torch.empty(len(x))
    _stray_loss[(len(x),)](x, targets, out, x.shape[1], BLOCK=block)
    return out


@jit
def _unmasked_target(x_ptr, target_ptr, loss_ptr, v, BLOCK: tl.constexpr):
    row, lane = tl.program_id(0), tl.arange(0, BLOCK)
    target = tl.load(target_ptr + row)
    top = tl.max(tl.full([BLOCK], -3.4e38, tl.float32), 0)
    total = tl.sum(tl.zeros([BLOCK], tl.float32), 0)
    for first in range(0, v, BLOCK):
        x = tl.load(x_ptr + row * v + first + lane, first + lane < v, -float("inf")).to(tl.float32)
        higher = tl.maximum(top, tl.max(x, 0))
        total = total * tl.exp(top - higher) + tl.sum(tl.exp(x - higher), 0)
        top = higher
    chosen = tl.load(x_ptr + row * v + target).to(tl.float32)  # 100 numbers before the row
    tl.store(loss_ptr + row, tl.where(target == -100, 0.0, top + tl.log(total) - chosen))


def q5_reads_the_ignored_target(x, targets, block=16):
    spare = torch.zeros(x.numel() + 256, dtype=x.dtype)
    inside = spare[128 : 128 + x.numel()].view(x.shape).copy_(x)  # so that what strays is ours
    out = torch.empty(len(x))
    _unmasked_target[(len(x),)](inside, targets, out, x.shape[1], BLOCK=block)
    return out


# ------------------------------------------------------------------------------ q6: find the race


@jit
def _columns(x_ptr, total_ptr, n, d, COLUMNS: tl.constexpr, WRONG: tl.constexpr):
    column = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    inside = column <= d if WRONG == "mask" else column < d
    total = tl.zeros([COLUMNS], tl.float32)
    for row in range(1 if WRONG == "first" else 0, n - 1 if WRONG == "last" else n):
        x = tl.load(x_ptr + row * d + column, inside, 0.0).to(tl.float32)
        total += x
        if WRONG == "half":
            total = total.to(tl.float16).to(tl.float32)
        if WRONG == "type":
            total = total.to(x_ptr.dtype.element_ty).to(tl.float32)
        if WRONG == "twice":
            total += 0 * tl.load(x_ptr + row * d + column, inside, 0.0)
    if WRONG == "store":
        tl.store(total_ptr + column, total)
    else:
        tl.store(total_ptr + column, total, inside)


def _q6(wrong, blocks=lambda d, columns: -(-d // columns), dtype=torch.float32):
    def column_sums(x, columns=16):
        n, d = x.shape
        total = torch.zeros(d, dtype=dtype)
        _columns[(blocks(d, columns),)](x, total, n, d, COLUMNS=columns, WRONG=wrong)
        return total

    return column_sums


@jit
def _rows(x_ptr, total_ptr, d, BLOCK: tl.constexpr, ATOMIC: tl.constexpr):
    row, column = tl.program_id(0), tl.arange(0, BLOCK)
    inside = column < d
    x = tl.load(x_ptr + row * d + column, inside, 0.0).to(tl.float32)
    if ATOMIC:
        tl.atomic_add(total_ptr + column, x, inside)
    else:
        tl.store(total_ptr + column, tl.load(total_ptr + column, inside, 0.0) + x, inside)


def _q6_rows(atomic):
    def column_sums(x, columns=16):
        n, d = x.shape
        total = torch.zeros(d)
        _rows[(n,)](x, total, d, BLOCK=power_of_two(d), ATOMIC=atomic)
        return total

    return column_sums


q6_still_a_race = _q6_rows(False)
q6_atomics = _q6_rows(True)
q6_blocks_rounded_down = _q6("", lambda d, columns: max(d // columns, 1))
q6_mask_too_wide = _q6("mask")
q6_first_row_missing = _q6("first")
q6_last_row_missing = _q6("last")
q6_sum_in_half = _q6("half")
q6_result_in_half = _q6("", dtype=torch.float16)
q6_store_without_mask = _q6("store")
q6_reads_twice = _q6("twice")


q6_sum_in_the_type_of_x = _q6("type")
q6_a_program_for_each_row = _q6("", lambda d, columns: max(7, -(-d // columns)))


def q6_result_in_the_type_of_x(x, columns=16):
    return _q6("", dtype=x.dtype)(x, columns)


def q6_a_program_for_each_column(x, columns=16):
    return _q6("")(x, 1)


def q6_ignores_columns(x, columns=16):
    return _q6("")(x, 16)


def q6_a_launch_for_each_row(x, columns=16):
    total = torch.zeros(x.shape[1])
    for row in x:
        _rows[(1,)](row, total, x.shape[1], BLOCK=power_of_two(x.shape[1]), ATOMIC=False)
    return total


def q6_pytorch_adds_the_rows(x, columns=16):
    total = torch.zeros(x.shape[1])
    for row in x:
        total = total + _q6("")(row[None], columns)
    return total


def q6_one_program(x, columns=16):
    return _q6("", lambda d, columns: 1)(x, power_of_two(x.shape[1]))


def q6_pytorch_does_it(x, columns=16):
    return x.float().sum(0)
