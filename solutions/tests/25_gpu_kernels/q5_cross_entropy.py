from otter.test_files import test_case

OK_FORMAT = False

name = "q5_cross_entropy"
points = 4

@test_case(points=None, hidden=False)
def test_rows(losses):
    import warnings
    import torch
    from minillm.kernels import dispatch
    from minillm.kernels.tracing import BadAccess, eager_bytes, trace

    def run(*args):
        made = []
        try:
            with trace() as traffic:
                names = eager_bytes(lambda: made.append(losses(*args)))[1]
        except BadAccess as error:
            raise AssertionError(f'{error} Mask the last block of a row, and the target of an ignored row.') from None
        moving = ('clone', 'set', 'copy', 'to_copy', 'zero', 'one', 'full', 'fill', 'new', 'lift')
        computed = sorted({name for name in names if not name.strip('_').startswith(moving)})
        assert not computed, f"PyTorch computed here ({', '.join(computed)}): the kernel has to do all of it"
        return (made[0], traffic)
    warnings.simplefilter('ignore', RuntimeWarning)
    assert dispatch.INTERPRETED, 'Triton is missing, or was imported before TRITON_INTERPRET was set: restart, then run the cells from the top'
    torch.manual_seed(0)
    x = 2 * torch.randn(5, 40)
    x[:, 20:] += 3
    targets = torch.tensor([3, 39, 0, 17, 30])
    out, traffic = run(x, targets)
    assert out is not None and out.shape == (5,), 'one loss for each row'
    assert traffic.loaded >= 4 * x.numel() and traffic.stored >= 5 * 4, 'the kernel has to read every logit and to store every loss itself'
    right = torch.nn.functional.cross_entropy(x.double(), targets, reduction='none')
    chosen = x.gather(1, targets[:, None])[:, 0]

    def is_(loss):
        return (out - loss).abs().max() < 0.0001
    assert not is_(x.logsumexp(1)), "the target's logit is not subtracted"
    assert not is_(-right), "the sign is wrong: the loss is log Σ exp(x) less the target's logit"
    assert not is_(x[:, :32].logsumexp(1) - chosen), 'the last block is left out: it is there even when it is not full'
    assert not is_(x[:, :16].logsumexp(1) - chosen) and (not is_(x[:, 32:].logsumexp(1) - chosen)), 'only one block counts: the sum runs over all of them'
    padded = torch.cat([x, torch.zeros(5, 8)], 1).logsumexp(1) - chosen
    assert not is_(padded), 'lanes beyond the row took part as zeros: fill them with -inf'
    gap = (out - right).abs().nan_to_num(9.0).max().item()
    assert not 1e-05 < gap < 0.02, f'nearly right, off by {gap:.1g}: the sum is kept in half precision'
    assert gap < 1e-05, f'off by {gap:.2g} where the maximum comes late: when it grows, the old sum shrinks by exp(old - new)'
    assert traffic.loaded <= 4 * x.numel() + 5 * (4 + 8), "each logit is read once, and the target's once more; yours reads more"

@test_case(points=None, hidden=False)
def test_ignored_and_large(losses):
    import warnings
    import torch
    from minillm.kernels.tracing import BadAccess, eager_bytes, trace

    def run(*args):
        made = []
        try:
            with trace() as traffic:
                names = eager_bytes(lambda: made.append(losses(*args)))[1]
        except BadAccess as error:
            raise AssertionError(f'{error} Mask the last block of a row, and the target of an ignored row.') from None
        moving = ('clone', 'set', 'copy', 'to_copy', 'zero', 'one', 'full', 'fill', 'new', 'lift')
        computed = sorted({name for name in names if not name.strip('_').startswith(moving)})
        assert not computed, f"PyTorch computed here ({', '.join(computed)}): the kernel has to do all of it"
        return (made[0], traffic)
    warnings.simplefilter('ignore', RuntimeWarning)
    torch.manual_seed(1)
    x = 200 * torch.randn(4, 23)
    targets = torch.tensor([22, -100, 5, -100])
    out, traffic = run(x, targets)
    right = torch.nn.functional.cross_entropy(x.double(), targets, reduction='none')
    assert (out[[1, 3]] == 0).all(), 'rows whose target is -100 have the loss 0'
    gap = (out - right).abs().nan_to_num(1000000000.0).max().item()
    assert gap < 0.001, 'logits in the hundreds overflow: exponentials are of x less the running maximum'
    x = torch.randn(3, 23) - 500
    targets = torch.tensor([0, 7, 22])
    gap = (run(x, targets)[0] - torch.nn.functional.cross_entropy(x.double(), targets, reduction='none')).abs().nan_to_num(1000000000.0).max().item()
    assert gap < 0.001, 'a row in which all logits are near -500: start with a maximum below every logit (-3.4e38), not with 0'

@test_case(points=None, hidden=True)
def test_blocks_and_half(losses):
    import torch
    from minillm.kernels.tracing import BadAccess, eager_bytes, trace

    def run(*args):
        made = []
        try:
            with trace() as traffic:
                names = eager_bytes(lambda: made.append(losses(*args)))[1]
        except BadAccess as error:
            raise AssertionError(f'{error} Mask the last block of a row, and the target of an ignored row.') from None
        moving = ('clone', 'set', 'copy', 'to_copy', 'zero', 'one', 'full', 'fill', 'new', 'lift')
        computed = sorted({name for name in names if not name.strip('_').startswith(moving)})
        assert not computed, f"PyTorch computed here ({', '.join(computed)}): the kernel has to do all of it"
        return (made[0], traffic)
    torch.manual_seed(2)
    for n, v, block, dtype in ((3, 64, 16, torch.float32), (2, 1, 8, torch.float32), (3, 100, 128, torch.float32), (2, 999, 32, torch.float16)):
        x = (5 * torch.randn(n, v)).to(dtype)
        targets = torch.randint(v, (n,))
        targets[0] = -100
        out, traffic = run(x, targets, block)
        assert all((launch.constants.get('BLOCK', block) == block for launch in traffic.launches)), f'block={block} was asked for: BLOCK logits at a time, not the whole row'
        right = torch.nn.functional.cross_entropy(x.double(), targets, reduction='none')
        gap = (out - right).abs().max().item()
        assert gap < 2e-05, f'off by {gap:.2g} for {v} logits of {dtype} in blocks of {block}: carry maximum and sum in float32'

