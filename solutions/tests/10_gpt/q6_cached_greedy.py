from otter.test_files import test_case

OK_FORMAT = False

name = "q6_cached_greedy"
points = 4

@test_case(points=None, hidden=False)
def test_equals_the_simple_loop(write):
    import torch
    from minillm.models.gpt import GPT, GPTConfig
    torch.manual_seed(0)
    model = GPT(GPTConfig(vocab_size=29, max_seq_len=64, d_model=24, n_layers=3, n_heads=4)).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    tokens = torch.randint(29, (3, 4))
    right = tokens
    with torch.no_grad():
        for _ in range(6):
            right = torch.cat([right, model(right)[:, -1].argmax(-1, keepdim=True)], dim=1)
    out = write(model, tokens, 6)
    assert isinstance(out, torch.Tensor), 'return a tensor of token ids'
    assert tuple(out.shape) != (3, 6), 'return the prompt and what follows it, not only the new tokens'
    assert tuple(out.shape) == (3, 10), f'4 tokens and 6 new ones make the shape (3, 10), not {tuple(out.shape)}'
    assert not out.is_floating_point(), 'return token ids, whole numbers: argmax of the logits'
    assert torch.equal(out[:, :4], tokens), 'the prompt must come first, unchanged'
    with torch.no_grad():
        blind = model(tokens[:, -1:])[:, -1].argmax(-1)
    assert not torch.equal(out[:, 4], blind), 'only the last token of the prompt was read: the first call reads all of it'
    assert torch.equal(out[:, 4], right[:, 4]), 'the first new token is wrong: take the argmax of the logits at the last position, over the vocabulary'
    assert torch.equal(out, right), 'the later tokens are wrong: one cache for the whole text, and only the newest column is read with it'

@test_case(points=None, hidden=False)
def test_reads_every_token_once(write):
    import sys
    import torch
    from minillm.models.gpt import GPT, GPTConfig
    torch.manual_seed(1)
    model = GPT(GPTConfig(vocab_size=29, max_seq_len=64, d_model=16, n_layers=2, n_heads=2)).eval()
    reads, graph, callers = ([], [], set())

    def note(module, given, kwargs, out):
        frame = sys._getframe()
        while frame:
            callers.add(frame.f_globals.get('__name__'))
            frame = frame.f_back
        reads.append((given[0] if given else kwargs['tokens']).shape[1])
        graph.append(torch.as_tensor(out).requires_grad)
    model.register_forward_hook(note, with_kwargs=True)
    out = write(model, torch.randint(29, (2, 5)), 7)
    assert tuple(out.shape) == (2, 12), f'5 tokens and 7 new ones make the shape (2, 12), not {tuple(out.shape)}'
    assert 'minillm.generation.loop' not in callers, "the library's generate did the work: write the loop yourself"
    assert sum(reads) != sum(range(5, 12)), 'every step reads the whole text: give the model a cache and only what it has not read'
    assert reads[0] != 1 or len(reads) < 11, 'read the prompt in one call: that is much faster than token by token'
    assert sum(reads) <= 12, f'the calls read {reads} tokens: the prompt once, then one new token at a time'
    assert reads == [5] + [1] * 6 or reads == [5] + [1] * 7, f'read the prompt once and then one new token at a time, not {reads}'
    assert not any(graph), 'gradients are recorded for every step, which costs time and memory: use torch.no_grad()'
    prompt = torch.randint(29, (2, 5))
    none = write(model, prompt, 0)
    assert isinstance(none, torch.Tensor) and torch.equal(none, prompt), 'n = 0 asks for no new token: return the prompt alone, not t + 1 tokens'

@test_case(points=None, hidden=True)
def test_other_lengths(write):
    import torch
    from minillm.generation import generate
    from minillm.models.gpt import GPT, GPTConfig
    torch.manual_seed(2)
    model = GPT(GPTConfig(vocab_size=31, max_seq_len=40, d_model=20, n_layers=2, n_heads=2)).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    for b, t, n in ((1, 1, 1), (1, 1, 30), (4, 17, 1), (2, 10, 30)):
        tokens = torch.randint(31, (b, t))
        kept, out = (tokens.clone(), write(model, tokens, n))
        assert tuple(out.shape) == (b, t + n), f'shape {tuple(out.shape)} instead of {(b, t + n)}'
        assert torch.equal(tokens, kept), 'the argument was changed'
        assert torch.equal(out, generate(model, tokens, max_new_tokens=n, cache=None)), f'wrong tokens for {b} rows of {t} and {n} new ones: does your loop work for one token, and up to a full context?'

