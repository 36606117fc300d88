from otter.test_files import test_case

OK_FORMAT = False

name = "q5_greedy"
points = 4

@test_case(points=None, hidden=False)
def test_one_source(write):
    import torch
    from minillm.generation.search import translate
    from minillm.models.encdec import EncDecConfig, EncoderDecoder
    for seed in range(6):
        torch.manual_seed(seed)
        model = EncoderDecoder(EncDecConfig(11, 24, d_model=12, n_layers=2, n_heads=3)).double().eval()
        with torch.no_grad():
            for p in model.parameters():
                p += 0.3 * torch.randn_like(p)
        source, mask = (torch.randint(3, 11, (1, 6)), torch.ones(1, 6, dtype=torch.bool))
        if seed < 2:
            other = write(model, source, mask, 4, 2, 9)
            assert [list(row) for row in other] == translate(model, source, start_id=4, eos_id=2, max_new_tokens=9), 'with start_id=4 the translation begins from token 4: is the start token taken from the argument?'
        found = write(model, source, mask, 1, 2, 9)
        assert isinstance(found, list) and len(found) == 1 and isinstance(found[0], list), 'return a list with one list of ids for each source'
        row = [int(i) for i in found[0]]
        right = translate(model, source, start_id=1, eos_id=2, max_new_tokens=9)
        assert row != [1, *right[0]], 'the start token is read, not written: leave it out'
        assert 2 not in row, 'cut at the end token, and leave it out'
        assert len(row) <= 9, f'{len(row)} ids: at most max_new_tokens, 9'
        assert row == right[0], f'{row} instead of {right[0]}: the likeliest token after the last position, again and again'

@test_case(points=None, hidden=False)
def test_padded_batch(write):
    import torch
    from minillm.generation.search import translate
    from minillm.models.encdec import EncDecConfig, EncoderDecoder
    for seed in range(6):
        torch.manual_seed(seed)
        model = EncoderDecoder(EncDecConfig(11, 24, d_model=12, n_layers=2, n_heads=3)).double().eval()
        with torch.no_grad():
            for p in model.parameters():
                p += 0.3 * torch.randn_like(p)
        source = torch.randint(3, 11, (4, 7))
        mask = torch.arange(7) < torch.tensor([7, 4, 2, 6])[:, None]
        source = source.masked_fill(~mask, 0)
        found = write(model, source, mask, 1, 2, 9)
        assert len(found) == 4, 'one translation for each source'
        alone = [translate(model, s[m][None], start_id=1, eos_id=2, max_new_tokens=9)[0] for s, m in zip(source, mask)]
        assert not any((2 in row for row in found)), 'each row is cut at its own end token, whatever the others do'
        seen = [translate(model, s[None], start_id=1, eos_id=2, max_new_tokens=9)[0] for s in source]
        assert found == alone or found != seen, 'padding changes the translations: hand on source_mask'
        for i, (mine, right) in enumerate(zip(found, alone)):
            assert list(mine) == right, f'source {i} translated in a batch gives {list(mine)}, alone {right}: is the mask given to encode and to remember, and does a row go on until its own end?'

@test_case(points=None, hidden=False)
def test_work(write):
    import sys
    import torch
    from minillm.models.encdec import EncDecConfig, EncoderDecoder
    torch.manual_seed(0)
    model = EncoderDecoder(EncDecConfig(11, 40, d_model=12, n_layers=1, n_heads=3)).eval()
    calls = {'encoder': 0, 'key': 0, 'decoder': 0}

    def count(name):
        return lambda *_: calls.update({name: calls[name] + 1})
    model.encoder[0].register_forward_hook(count('encoder'))
    model.decoder[0].cross_attention.key.register_forward_hook(count('key'))
    model.decoder[0].register_forward_hook(count('decoder'))
    source, mask = (torch.randint(3, 11, (3, 6)), torch.ones(3, 6, dtype=torch.bool))
    mask[1, 4:] = False
    kept, used, before = ((source.clone(), mask.clone()), set(), sys.getprofile())
    sys.setprofile(lambda frame, *_: used.add(frame.f_globals.get('__name__')))
    try:
        first = write(model, source, mask, 1, 2, 8)
    finally:
        sys.setprofile(before)
    assert not any((str(name).startswith('minillm.generation') for name in used)), 'that is the search of the library: write the loop with encode, remember and decode'
    assert (source == kept[0]).all() and (mask == kept[1]).all(), 'your function wrote into `source` or `source_mask`: leave them as they are'
    assert calls['encoder'] == 1, f"the encoder ran {calls['encoder']} times: once for the batch, before the loop"
    assert calls['key'] == 1, f"the keys of the source were made {calls['key']} times: call `remember` once, before the loop"
    assert calls['decoder'] <= 8, f"the decoder ran {calls['decoder']} times for at most 8 tokens"
    row = first[0]
    calls['decoder'] = 0
    steps = []

    class Script(torch.nn.Module):

        def encode(self, source, *, source_mask=None):
            return source

        def remember(self, encoded, *, source_mask=None):
            return encoded

        def decode(self, target, memory, **options):
            steps.append(1)
            new = torch.tensor([2 if target.shape[1] == i + 1 else 3 for i in range(len(target))])
            return torch.nn.functional.one_hot(new, 6).double()[:, None].expand(-1, target.shape[1], -1)
    rows = write(Script(), torch.full((4, 5), 3), torch.ones(4, 5, dtype=torch.bool), 1, 2, 9)
    assert [list(r) for r in rows] == [[], [3], [3, 3], [3, 3, 3]], f'rows that end after 1, 2, 3 and 4 steps give {rows}'
    assert len(steps) == 4, f'four rows end after 1, 2, 3 and 4 steps, and the decoder ran {len(steps)} times: remember who has ended'
    if row:
        write(model, source[:1], mask[:1], 1, int(row[0]), 8)
        assert calls['decoder'] == 1, f"the only row has ended after one token, and the decoder ran {calls['decoder']} times: stop then"

@test_case(points=None, hidden=True)
def test_start_is_end(write):
    import torch
    from minillm.generation.search import translate
    from minillm.models.encdec import EncDecConfig, EncoderDecoder
    for seed in range(8):
        torch.manual_seed(seed)
        model = EncoderDecoder(EncDecConfig(6, 24, d_model=12, n_layers=1, n_heads=3)).double().eval()
        with torch.no_grad():
            for p in model.parameters():
                p += 0.4 * torch.randn_like(p)
        source, mask = (torch.randint(2, 6, (3, 5)), torch.ones(3, 5, dtype=torch.bool))
        right = translate(model, source, start_id=1, eos_id=1, max_new_tokens=10)
        found = write(model, source, mask, 1, 1, 10)
        assert [list(row) for row in found] == right, 'some models start with their end token: only what is written can end a row'

