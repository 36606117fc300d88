from otter.test_files import test_case

OK_FORMAT = False

name = "q5_residual_scale"
points = 4

@test_case(points=None, hidden=False)
def test_scale_residual(scale_residual_):
    import copy
    import math
    import torch
    from minillm.models.gpt import GPT, GPTConfig
    torch.manual_seed(0)
    model = GPT(GPTConfig(vocab_size=7, max_seq_len=5, d_model=12, n_layers=6, n_heads=2))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(1 + torch.rand_like(parameter))
    before = copy.deepcopy(model.state_dict())
    try:
        scale_residual_(model)
    except NotImplementedError:
        raise
    except RuntimeError as error:
        raise AssertionError(f'changing weights in place needs `with torch.no_grad():` around it; torch says: {error}') from error
    ratio = {name: (tensor / before[name]).mean().item() for name, tensor in model.state_dict().items()}
    for name in ('blocks.0.attention.output.weight', 'blocks.0.ffn.down.weight'):
        r = ratio[name]
        assert r != 1, f'{name} is unchanged: both last layers of a block write to the stream; change them in place, under no_grad'
        assert abs(r - 6 ** (-0.5)) > 0.001, f'{name} is divided by √L: each block adds two terms, so there are 2 L of them'
        assert abs(r - 1 / 12) > 0.001, f'{name} is divided by 2 L: variances add up, so the square root is enough'
        assert abs(r - 12 ** 0.5) > 0.001, f'{name} became larger: divide by √(2L)'
        assert abs(r - 12 ** (-0.5)) < 0.0001, f'{name} was multiplied by {r:.4f} instead of 1/√12 = 0.2887 for 6 layers'
    for name, r in ratio.items():
        right = 12 ** (-0.5) if name.endswith(('attention.output.weight', 'ffn.down.weight')) else 1
        assert abs(r - right) < 0.0001, f'{name} was multiplied by {r:.4f} instead of {right:.4f}: only the two last weight matrices of every block change'

@test_case(points=None, hidden=False)
def test_stream_growth(stream_growth):
    import torch
    from minillm.models.gpt import GPT, GPTConfig
    torch.manual_seed(1)
    model = GPT(GPTConfig(vocab_size=17, max_seq_len=12, d_model=12, n_layers=3, n_heads=2))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    tokens = torch.randint(17, (3, 11))
    found = []
    model.blocks[0].register_forward_pre_hook(lambda module, given: found.append(given[0].std().item()))
    model.blocks[-1].register_forward_hook(lambda module, given, out: found.append(out.std().item()))
    model.final_norm.register_forward_hook(lambda module, given, out: found.append(out.std().item()))
    with torch.no_grad():
        model(tokens)
    first, last, normed = found
    growth = float(stream_growth(model, tokens))
    assert abs(growth - first / last) > 0.0001, 'upside down: divide the deviation behind the last block by that in front of the first'
    assert abs(growth - (last / first) ** 2) > 0.0001, 'those are variances: use the standard deviation, .std()'
    assert abs(growth - last) > 0.0001, 'divide by the deviation in front of the first block'
    assert abs(growth - normed / first) > 0.0001, 'measure before the final norm: it would hide what you are looking for'
    assert abs(growth - last / first) < 0.0001, f"the stream grows {last / first:.4f}-fold here, you have {growth:.4f}: positions added, causal=True, each block's output the next one's input?"

@test_case(points=None, hidden=False)
def test_measured(growth_before, growth_after):
    import torch
    from minillm.models.gpt import GPT, GPTConfig, init_gpt1
    before, after = (float(growth_before), float(growth_after))
    assert abs(before - after) > 0.5, 'both are the same: measure once before and once after scale_residual_'
    assert before > after, 'the stream grows less with the scaling than without it: are the two swapped?'
    right = []
    for factor in (1, 8):
        torch.manual_seed(0)
        model = GPT(GPTConfig(vocab_size=256, max_seq_len=64, d_model=64, n_layers=32, n_heads=4), init=init_gpt1)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if name.endswith(('attention.output.weight', 'ffn.down.weight')):
                    parameter /= factor
        stream = []
        model.blocks[0].register_forward_pre_hook(lambda module, given, stream=stream: stream.append(given[0].std().item()))
        model.blocks[-1].register_forward_hook(lambda module, given, out, stream=stream: stream.append(out.std().item()))
        with torch.no_grad():
            model(torch.randint(256, (4, 64), generator=torch.Generator().manual_seed(0)))
        right.append(stream[1] / stream[0])
    assert abs(before - right[0] ** 2) > 0.01, 'that is a ratio of variances: compare standard deviations'
    assert abs(before - right[0]) < 0.01, 'growth_before is not what deep() gives without the scaling: measure on a fresh deep(), with all of `text`'
    assert abs(after - right[1]) < 0.01, 'growth_after is not what deep() gives with the scaling: call scale_residual_ once, on a fresh deep(), then measure on all of `text`'

