"""Wrong answers to exercises/04_recurrent: each is a mistake people make, and each must fail."""

import torch

# --------------------------------------------------------------------------------- q1: count

RIGHT_PARAMETERS = 3 * (300 * 500 + 500 * 500 + 1000) + 2 * 3 * (2 * 500 * 500 + 1000)


def _q1(parameters=RIGHT_PARAMETERS, state_bytes=48_000, steps_in_a_row=1002):
    return {"parameters": parameters, "state_bytes": state_bytes, "steps_in_a_row": steps_in_a_row}


def q1_every_layer_reads_300():
    return _q1(parameters=3 * 3 * (300 * 500 + 500 * 500 + 1000))


def q1_one_bias():
    return _q1(parameters=RIGHT_PARAMETERS - 3 * 3 * 500)


def q1_no_bias():
    return _q1(parameters=RIGHT_PARAMETERS - 2 * 3 * 3 * 500)


def q1_four_gates():
    return _q1(parameters=RIGHT_PARAMETERS * 4 // 3)


def q1_one_gate():
    return _q1(parameters=RIGHT_PARAMETERS // 3)


def q1_a_cell_too():
    return _q1(state_bytes=96_000)


def q1_numbers_not_bytes():
    return _q1(state_bytes=12_000)


def q1_one_layer():
    return _q1(state_bytes=16_000)


def q1_one_text():
    return _q1(state_bytes=6_000)


def q1_every_token():
    return _q1(state_bytes=48_000_000)


def q1_layer_after_layer():
    return _q1(steps_in_a_row=3000)


def q1_tokens_only():
    return _q1(steps_in_a_row=1000)


def q1_off_by_one():
    return _q1(steps_in_a_row=1003)


# ------------------------------------------------------------------------------ q2: a GRU step


def _parts(x, h, w, u, b, c):
    return (*(x @ w.T + b).chunk(3, dim=-1), *(h @ u.T + c).chunk(3, dim=-1))


def q2_update_inverted(x, h, w, u, b, c):
    x_r, x_z, x_n, h_r, h_z, h_n = _parts(x, h, w, u, b, c)
    r, z = torch.sigmoid(x_r + h_r), torch.sigmoid(x_z + h_z)
    return z * torch.tanh(x_n + r * h_n) + (1 - z) * h


def q2_reset_before_the_product(x, h, w, u, b, c):
    x_r, x_z, x_n, h_r, h_z, _ = _parts(x, h, w, u, b, c)
    n = h.shape[1]
    r, z = torch.sigmoid(x_r + h_r), torch.sigmoid(x_z + h_z)
    new = torch.tanh(x_n + (r * h) @ u[2 * n :].T + c[2 * n :])
    return (1 - z) * new + z * h


def q2_reset_on_everything(x, h, w, u, b, c):
    x_r, x_z, x_n, h_r, h_z, h_n = _parts(x, h, w, u, b, c)
    r, z = torch.sigmoid(x_r + h_r), torch.sigmoid(x_z + h_z)
    return (1 - z) * torch.tanh(r * (x_n + h_n)) + z * h


def q2_no_reset(x, h, w, u, b, c):
    x_r, x_z, x_n, h_r, h_z, h_n = _parts(x, h, w, u, b, c)
    z = torch.sigmoid(x_z + h_z)
    return (1 - z) * torch.tanh(x_n + h_n) + z * h


def q2_gates_swapped(x, h, w, u, b, c):
    x_z, x_r, x_n, h_z, h_r, h_n = _parts(x, h, w, u, b, c)
    r, z = torch.sigmoid(x_r + h_r), torch.sigmoid(x_z + h_z)
    return (1 - z) * torch.tanh(x_n + r * h_n) + z * h


def q2_one_bias(x, h, w, u, b, c):
    x_r, x_z, x_n, h_r, h_z, h_n = _parts(x, h, w, u, b, 0 * c)
    r, z = torch.sigmoid(x_r + h_r), torch.sigmoid(x_z + h_z)
    return (1 - z) * torch.tanh(x_n + r * h_n) + z * h


def q2_sigmoid_candidate(x, h, w, u, b, c):
    x_r, x_z, x_n, h_r, h_z, h_n = _parts(x, h, w, u, b, c)
    r, z = torch.sigmoid(x_r + h_r), torch.sigmoid(x_z + h_z)
    return (1 - z) * torch.sigmoid(x_n + r * h_n) + z * h


def q2_detached(x, h, w, u, b, c):
    x_r, x_z, x_n, h_r, h_z, h_n = _parts(x, h, w, u, b, c)
    r, z = torch.sigmoid(x_r + h_r), torch.sigmoid(x_z + h_z)
    return (1 - z) * torch.tanh(x_n + r * h_n) + z * h.detach()


def q2_sigmoid_overflows(x, h, w, u, b, c):
    x_r, x_z, x_n, h_r, h_z, h_n = _parts(x, h, w, u, b, c)
    r, z = (torch.exp(s) / (1 + torch.exp(s)) for s in (x_r + h_r, x_z + h_z))
    return (1 - z) * torch.tanh(x_n + r * h_n) + z * h


def q2_changes_the_state(x, h, w, u, b, c):
    x_r, x_z, x_n, h_r, h_z, h_n = _parts(x, h, w, u, b, c)
    r, z = torch.sigmoid(x_r + h_r), torch.sigmoid(x_z + h_z)
    new = (1 - z) * torch.tanh(x_n + r * h_n) + z * h
    return h.copy_(new)


def q2_copies_into_a_cell(x, h, w, u, b, c):
    cell = torch.nn.GRUCell(x.shape[1], h.shape[1]).to(x.dtype)
    with torch.no_grad():
        for mine, given in zip(cell.parameters(), (w, u, b, c), strict=True):
            mine.copy_(given)
    return cell(x, h)


# ------------------------------------------------------------------------------ q3: bugs in BPTT


def _bptt(x, u, late=1, add=True, transpose=True, turned=False, slope=True):
    states = [torch.zeros_like(x[0])]
    for row in x:
        states.append(torch.tanh(row + states[-1] @ u))
    g, total = torch.ones_like(x[0]), torch.zeros_like(u)
    for t in reversed(range(len(x))):
        delta = g * (1 - states[t + late] ** 2) if slope else g
        share = torch.outer(delta, states[t]) if turned else torch.outer(states[t], delta)
        total = total + share if add else share
        g = delta @ (u.T if transpose else u)
    return total


def q3_as_it_was(x, u):
    return _bptt(x, u, late=0, add=False, transpose=False)


def q3_state_before(x, u):
    return _bptt(x, u, late=0)


def q3_overwritten(x, u):
    return _bptt(x, u, add=False)


def q3_not_transposed(x, u):
    return _bptt(x, u, transpose=False)


def q3_turned(x, u):
    return _bptt(x, u, turned=True)


def q3_no_slope(x, u):
    return _bptt(x, u, slope=False)


def q3_adds_into_the_argument(x, u):
    total = _bptt(x, u)
    x.add_(1.0)
    return total


def _last_sum(x, u):
    h = torch.zeros_like(x[0])
    for row in x:
        h = torch.tanh(row + h @ u)
    return h.sum()


def q3_autograd(x, u):
    leaf = u.detach().clone().requires_grad_()
    return torch.autograd.grad(_last_sum(x, leaf), leaf, allow_unused=True)[0]


def q3_functional_gradient(x, u):
    return torch.func.grad(lambda u: _last_sum(x, u))(u)


def q3_clips(x, u):
    return _bptt(x, u).clamp(-0.5, 0.5)


# ------------------------------------------------------------------------------------- q4: a CRF


def _log_z(z, a, add=torch.logsumexp, dim=0, use=True):
    alpha = z[0]
    for emission in z[1:]:
        alpha = add(alpha[:, None] + (a if use else 0 * a), dim=dim) + emission
    return add(alpha, dim=0)


def _best(z, a, dim=0, back=True):
    best, origins = z[0], []
    for emission in z[1:]:
        best, origin = (best[:, None] + a).max(dim=dim)
        best = best + emission
        origins.append(origin)
    path = [int(best.argmax())]
    for origin in reversed(origins):
        path.append(int(origin[path[-1]]))
    return path[::-1] if back else path


def _q4(log_z=_log_z, best_tags=_best):
    return {"log_z": log_z, "best_tags": best_tags}


def q4_transposed():
    return _q4(log_z=lambda z, a: _log_z(z, a.T))


def q4_no_transitions():
    return _q4(log_z=lambda z, a: _log_z(z, a, use=False))


def q4_maximum():
    return _q4(log_z=lambda z, a: _log_z(z, a, add=torch.amax))


def q4_not_a_logarithm():
    return _q4(log_z=lambda z, a: _log_z(z, a).exp())


def q4_overflows():
    def log_z(z, a):
        alpha = z[0].exp()
        for emission in z[1:]:
            alpha = (alpha @ a.exp()) * emission.exp()
        return alpha.sum().log()

    return _q4(log_z=log_z)


def q4_detached():
    return _q4(log_z=lambda z, a: _log_z(z.detach(), a) + 0 * z.sum())


def q4_first_emission_forgotten():
    return _q4(log_z=lambda z, a: _log_z(torch.cat([0 * z[:1], z[1:]]), a))


def q4_best_transposed():
    return _q4(best_tags=lambda z, a: _best(z, a.T))


def q4_backwards():
    return _q4(best_tags=lambda z, a: _best(z, a, back=False))


def q4_each_alone():
    return _q4(best_tags=lambda z, a: z.argmax(-1).tolist())


def q4_greedy():
    def best_tags(z, a):
        path = [int(z[0].argmax())]
        for emission in z[1:]:
            path.append(int((a[path[-1]] + emission).argmax()))
        return path

    return _q4(best_tags=best_tags)


def q4_a_float():
    return _q4(log_z=lambda z, a: _log_z(z, a).item())


def q4_detached_result():
    return _q4(log_z=lambda z, a: _log_z(z, a).detach())


def q4_changes_z():
    def log_z(z, a):
        for i in range(1, len(z)):
            z[i] += torch.logsumexp(z[i - 1][:, None] + a, dim=0)
        return torch.logsumexp(z[-1], dim=0)

    return _q4(log_z=log_z)


def q4_tags_as_a_tensor():
    return _q4(best_tags=lambda z, a: torch.tensor(_best(z, a)))


def q4_list_of_tensors():
    return _q4(best_tags=lambda z, a: [torch.tensor(y) for y in _best(z, a)])


def q4_best_overflows():
    def best_tags(z, a):
        best, origins = z[0], []
        for emission in z[1:]:
            best, origin = (best[:, None] + a).exp().max(dim=0)
            best = best.log() + emission
            origins.append(origin)
        path = [int(best.argmax())]
        for origin in reversed(origins):
            path.append(int(origin[path[-1]]))
        return path[::-1]

    return _q4(best_tags=best_tags)


def q4_short_texts_only():
    return _q4(best_tags=lambda z, a: _best(z, a) if len(z) < 10 else z.argmax(-1).tolist())


def q4_three_or_four_tags():
    return _q4(log_z=lambda z, a: _log_z(z[:, :4], a[:4, :4]))


def q4_best_marginals():
    def best_tags(z, a):
        z = z.detach().clone().requires_grad_()
        return torch.autograd.grad(_log_z(z, a), z)[0].argmax(-1).tolist()

    return _q4(best_tags=best_tags)


# ---------------------------------------------------------------------------- q5: forgetting


def _share(model, x, last_only=True, flip=False, rows=slice(None), square=False):
    x = x.detach().clone().requires_grad_()
    out = model(x)
    (grad,) = torch.autograd.grad((out[:, -1] if last_only else out).sum(), x)
    first, last = grad[rows, 0].norm(), grad[rows, -1].norm()
    share = (last / first if flip else first / last).item()
    return share**2 if square else share


def _q5(gradient_share=_share, smallest_bias=3):
    return {"gradient_share": gradient_share, "smallest_bias": smallest_bias}


def q5_upside_down():
    return _q5(lambda model, x: _share(model, x, flip=True))


def q5_all_outputs():
    return _q5(lambda model, x: _share(model, x, last_only=False))


def q5_first_row_only():
    return _q5(lambda model, x: _share(model, x, rows=slice(0, 1)))


def q5_squared():
    return _q5(lambda model, x: _share(model, x, square=True))


def q5_a_tensor():
    return _q5(lambda model, x: torch.tensor(_share(model, x)))


def q5_not_relative():
    def share(model, x):
        x = x.detach().clone().requires_grad_()
        return torch.autograd.grad(model(x)[:, -1].sum(), x)[0][:, 0].norm().item()

    return _q5(share)


def q5_changes_x():
    def share(model, x):
        x.requires_grad_()
        (grad,) = torch.autograd.grad(model(x)[:, -1].sum(), x)
        return (grad[:, 0].norm() / grad[:, -1].norm()).item()

    return _q5(share)


def q5_bias_one():
    return _q5(smallest_bias=1)


def q5_bias_too_large():
    return _q5(smallest_bias=4)


def q5_the_gate_instead():
    return _q5(smallest_bias=0.95)


def q5_leaves_gradients_behind():
    def share(model, x):
        x = x.detach().clone().requires_grad_()
        model(x)[:, -1].sum().backward()
        return (x.grad[:, 0].norm() / x.grad[:, -1].norm()).item()

    return _q5(share)


def q5_token_by_token():
    def share(model, x):
        x = x.detach().clone().requires_grad_()
        (grad,) = torch.autograd.grad(model(x)[:, -1].sum(), x)
        return (grad[:, 0].norm(dim=-1) / grad[:, -1].norm(dim=-1)).mean().item()

    return _q5(share)


def q5_token_hundred():
    def share(model, x):
        x = x.detach().clone().requires_grad_()
        (grad,) = torch.autograd.grad(model(x)[:, -1].sum(), x)
        return (grad[:, 0].norm() / grad[:, :100][:, -1].norm()).item()

    return _q5(share)


# ------------------------------------------------------------------------------------ q6: a scan


def _loop(a, b):
    h, rows = torch.zeros_like(b[:, 0]), []
    for t in range(b.shape[1]):
        h = a[:, t] * h + b[:, t]
        rows.append(h)
    return torch.stack(rows, dim=1)


def q6_a_loop(a, b):
    return _loop(a, b)


def q6_divides(a, b):
    products = a.cumprod(dim=1)
    return products * (b / products).cumsum(dim=1)


def _scan(a, b, rounds=None, a_first=False, fill=1.0):
    reach, t = 1, a.shape[1]
    while reach < (t if rounds is None else rounds(t)):
        before_a = torch.nn.functional.pad(a[:, :-reach], (0, 0, reach, 0), value=fill)
        before_b = torch.nn.functional.pad(b[:, :-reach], (0, 0, reach, 0))
        new = a * before_a
        a, b = new, b + (new if a_first else a) * before_b
        reach *= 2
    return b


def q6_a_before_b(a, b):
    return _scan(a, b, a_first=True)


def q6_one_round_short(a, b):
    return _scan(a, b, rounds=lambda t: t // 2)


def q6_one_round(a, b):
    return _scan(a, b, rounds=lambda t: min(t, 2))


def q6_wraps_around(a, b):
    reach = 1
    while reach < a.shape[1]:
        a, b = a * a.roll(reach, 1), b + a * b.roll(reach, 1)
        reach *= 2
    return b


def q6_table_of_pairs(a, b):
    t = a.shape[1]
    table = torch.ones(a.shape[0], t, t, a.shape[2], dtype=a.dtype)
    later = torch.ones(t, t, dtype=torch.bool).tril(-1)[None, :, :, None]
    table = torch.where(later, a[:, :, None], table).cumprod(dim=1)
    return (table * later.logical_or(torch.eye(t).bool()[None, :, :, None]) * b[:, None]).sum(2)


def q6_detached(a, b):
    return _scan(a.detach(), b) + 0 * a


def q6_in_numpy(a, b):
    states, h = b.detach().numpy().copy(), 0.0
    for t in range(b.shape[1]):
        h = a[:, t].detach().numpy() * h + states[:, t]
        states[:, t] = h
    return torch.from_numpy(states)


def q6_in_lists(a, b):
    states, factors = b.tolist(), a.tolist()
    for i, text in enumerate(states):
        for t in range(1, len(text)):
            for j in range(len(text[0])):
                text[t][j] += factors[i][t][j] * text[t - 1][j]
    return torch.tensor(states, dtype=a.dtype)


def q6_changes_a_and_b(a, b):
    reach = 1
    while reach < a.shape[1]:
        b[:, reach:] = b[:, reach:] + a[:, reach:] * b[:, :-reach]
        a[:, reach:] = a[:, reach:] * a[:, :-reach]
        reach *= 2
    return b


def q6_blocks_of_sixteen(a, b):
    h, rows = torch.zeros_like(b[:, :1]), []
    for first, part in zip(a.split(16, dim=1), b.split(16, dim=1), strict=True):
        products = _scan(first, torch.zeros_like(part).index_fill(1, torch.tensor([0]), 1.0))
        rows.append(_scan(first, part) + products * first[:, :1] * h)
        h = rows[-1][:, -1:]
    return torch.cat(rows, dim=1)
