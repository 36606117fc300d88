from otter.test_files import test_case

OK_FORMAT = False

name = "q1_predict"
points = 3

@test_case(points=None, hidden=False)
def test_decoder_inputs(decoder_inputs):
    import torch
    from minillm.models.encdec import shift_right
    ids = torch.as_tensor(decoder_inputs)
    assert ids.dtype == torch.long, 'ids are whole numbers: 7, not 7.0'
    ids = ids.tolist()
    assert len(ids) == 6, f'the decoder reads as many tokens as it predicts, six, not {len(ids)}'
    assert ids[0] != 7, 'not shifted: position 0 would read the token that it must predict'
    assert ids[0] == 1, 'the first token read is the start token: nothing has been written yet'
    assert -100 not in ids, '-100 is a mark for the loss, not a token: an input needs the padding id there'
    assert ids[4] == 2, 'after 9 comes the end token: it is read by the first padded place, and nobody minds'
    right = shift_right(torch.tensor([[7, 5, 9, 2, -100, -100]]), 1, pad_id=0)[0].tolist()
    assert ids == right, 'start, then the targets but the last one, with padding where a target is ignored'

@test_case(points=None, hidden=False)
def test_cross_shape(cross_shape):
    shape = tuple(cross_shape)
    assert all((isinstance(axis, int) for axis in shape)), 'the lengths of axes are whole numbers: 3, not 3.0'
    assert len(shape) == 4, 'the weights have four axes: batch, heads, queries, keys'
    assert shape != (3, 8, 11, 6), 'the other way round: target tokens ask, source tokens are looked at'
    assert shape != (3, 8, 6, 6), "that is the decoder's self-attention; cross-attention looks at the source"
    assert shape != (3, 8, 11, 11), "that is the encoder's self-attention; here the decoder asks"
    assert 48 not in shape and 24 not in shape, 'one cross-attention of one block: axes are not multiplied together'
    assert shape == (3, 8, 6, 11), 'the axes are (batch, heads, target tokens, source tokens)'

@test_case(points=None, hidden=False)
def test_key_rows(key_rows):
    from minillm.generation.search import beam_search
    from minillm.models.encdec import Conditioned, EncDecConfig, EncoderDecoder
    import torch
    torch.manual_seed(0)
    model = EncoderDecoder(EncDecConfig(9, 40, d_model=8, n_layers=1, n_heads=2)).eval()
    rows = []
    model.decoder[0].cross_attention.key.register_forward_hook(lambda m, i, out: rows.append(out.shape[0] * out.shape[1]))
    with torch.no_grad():
        memory = model.remember(model.encode(torch.randint(3, 9, (1, 11))))
    beam_search(Conditioned(model, memory), torch.tensor([[1]]), width=4, max_new_tokens=20)
    n = int(key_rows)
    assert n != 220, 'once a token is what a decoder does that forgets: the source does not change, its keys are kept'
    assert n != 44, 'the four beams have one and the same source: its keys are made once and then shared out'
    assert n != 880, 'neither a new token nor a beam changes the source: its keys are made once'
    assert n == sum(rows) == 11, "count: each source token's vector is multiplied by the key matrix how often?"

