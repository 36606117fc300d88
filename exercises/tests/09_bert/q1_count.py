from otter.test_files import test_case

OK_FORMAT = False

name = "q1_count"
points = 2

@test_case(points=None, hidden=False)
def test_encoder(n_encoder):
    from torch import nn
    d = 96
    layer = nn.TransformerEncoderLayer(d, 4, 4 * d, batch_first=True)
    in_layers = 3 * sum((p.numel() for p in layer.parameters()))
    right = (1000 + 64 + 3) * d + 2 * d + in_layers
    missing = right - n_encoder
    assert missing != 2 * d, 'there is a norm behind the sum of the three tables'
    assert missing != 3 * d, 'the table of segments is missing: one row for each of the three texts'
    assert missing != d, "the table of segments has three rows here, not BERT's two"
    assert missing != 2 * d + 3 * d, 'the norm behind the tables and the table of segments are missing'
    assert missing != -2 * d, 'a post-norm block ends in a norm: there is none behind the last block'
    assert missing != -(d * d + d), 'the pooler belongs to next-sentence prediction, not to the encoder'
    assert missing != 2 * in_layers // 3, 'there are three layers, and you counted one'
    assert missing != 64 * d, 'BERT learns its positions: a table of 64 rows'
    assert missing != -1000 * d, 'the output matrix is the table of tokens: counted once, and it belongs to the head'
    assert missing != 3 * 13 * d, 'the biases and norms of the layers are missing: 13 d in each'
    assert missing != 3 * 9 * d, 'the biases of the layers are missing: 4 d in attention, 5 d in the feed-forward layer'
    assert missing != 3 * 4 * d, 'each layer has two norms, with a scale and a shift'
    assert missing != 3 * 4 * d * d, 'attention has four square matrices, and the feed-forward layer two of d x 4 d'
    assert n_encoder == right, f"PyTorch's layer of this size has {in_layers // 3} parameters: compare part by part"

@test_case(points=None, hidden=False)
def test_head(n_mlm_head):
    d = 96
    right = d * d + d + 2 * d + 1000
    missing = right - n_mlm_head
    assert missing != 1000, 'each word piece has an output bias of its own'
    assert missing != -1000 * d, 'the output matrix is the table of tokens: it adds nothing'
    assert missing != 2 * d, 'the head has a norm, with a scale and a shift'
    assert missing != d, 'the dense layer of the head has a bias'
    assert missing != -(d * d + d), 'the pooler belongs to next-sentence prediction, not to this head'
    assert missing != -(2 * d + 2), '2 d + 2 is the head of next-sentence prediction, another one'
    assert missing != 1000 - d, 'the output bias has a number for each word piece, 1000, not d'
    assert n_mlm_head == right, 'a dense layer d x d with bias, a norm, and a bias for each word piece'

