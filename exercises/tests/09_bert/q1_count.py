from otter.test_files import test_case

OK_FORMAT = False

name = "q1_count"
points = 2

@test_case(points=None, hidden=False)
def test_encoder(n_encoder):
    from torch import nn
    d, e = (96, 40)
    layer = sum((p.numel() for p in nn.TransformerEncoderLayer(d, 4, 4 * d, batch_first=True).parameters()))
    right = (1000 + 64 + 3) * e + 2 * e + e * d + d + layer
    missing = right - n_encoder
    assert missing != -2 * layer, 'the three layers share their weights: one set of numbers, not three'
    assert missing != -(1067 * (d - e)), 'the three tables have width e, not d: that is what makes them small'
    assert missing not in (right - bert for bert in (1067 * d + 2 * d + layer, 1067 * d + 2 * d + 3 * layer)), 'that is BERT with tables of width d: here they have width e, and a linear layer widens their sum'
    assert missing != 2 * e, 'there is a norm behind the sum of the three tables, of width e'
    assert missing != -2 * (d - e), 'the norm comes before the widening: its width is e'
    assert missing != e * d + d, 'the linear layer from e to d is missing'
    assert missing != d, 'the linear layer from e to d has a bias, as wide as what comes out: d'
    assert missing != d - e, 'the bias of the layer from e to d is as wide as what comes out: d'
    assert missing != 3 * e, 'the table of segments is missing: one row for each of the three texts'
    assert missing != e, "the table of segments has three rows here, not BERT's two"
    assert missing != 64 * e, 'BERT and ALBERT learn their positions: a table of 64 rows'
    assert missing != -2 * d, 'a post-norm block ends in a norm: there is none behind the last block'
    assert missing != -(d * d + d), 'the pooler belongs to the heads, not to the encoder'
    assert missing != -1000 * e, 'the output matrix is the table of tokens: counted once'
    assert missing != 13 * d, 'the biases and norms of the layer are missing: 13 d'
    assert missing != 9 * d, 'the biases of the layer are missing: 4 d in attention, 5 d in the feed-forward layer'
    assert missing != 4 * d, 'a layer has two norms, with a scale and a shift'
    assert n_encoder == right, f"PyTorch's layer of this size has {layer} parameters: compare part by part"

@test_case(points=None, hidden=False)
def test_head(n_mlm_head):
    d, e = (96, 40)
    right = d * e + e + 2 * e + 1000
    missing = right - n_mlm_head
    assert n_mlm_head != d * d + d + 2 * d + 1000, "that is BERT's head: here the dense layer leads from d to e, the width of the table"
    assert missing != 1000, 'each word piece has an output bias of its own'
    assert missing != -1000 * e, 'the output matrix is the table of tokens: it adds nothing'
    assert missing != -1000 * d, 'the output matrix is the table of tokens, of width e: it adds nothing'
    assert missing != 2 * e, 'the head has a norm, with a scale and a shift'
    assert missing != -2 * (d - e), 'the norm of the head comes after the dense layer: its width is e'
    assert missing != e, 'the dense layer of the head has a bias'
    assert missing != -(d - e), 'the bias of the dense layer is as wide as what comes out: e'
    assert missing != -(d * d + d), 'the pooler belongs to another head, not to this one'
    assert missing != 1000 - e, 'the output bias has a number for each word piece, 1000, not e'
    assert n_mlm_head == right, 'a dense layer from d to e with bias, a norm of width e, and a bias for each word piece'

