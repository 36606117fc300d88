from otter.test_files import test_case

OK_FORMAT = False

name = "q1_count"
points = 2

@test_case(points=None, hidden=False)
def test_n_parameters(n_parameters):
    import torch
    from minillm.models.llama import LlamaConfig, llama
    numbers = dict(vocab_size=32000, max_seq_len=2048, d_model=2048, n_heads=32, n_kv_heads=4, d_ff=5632)
    with torch.device('meta'):
        one, two = (sum((w.numel() for w in llama(**numbers, n_layers=n).parameters())) for n in (1, 2))
    right = one + 21 * (two - one)
    missing = right - n_parameters
    assert missing != 32000 * 2048, 'the output layer is a matrix of its own here: the table counts twice'
    assert missing != 2 * 32000 * 2048, 'the token table and the output layer are missing'
    assert missing != -22 * 2 * 2048 * (2048 - 256), 'keys and values have 4 heads of 64, not 32'
    assert missing != 22 * 2048 * 256, 'keys and values: two matrices, not one'
    assert missing != 22 * 2048 * 5632, 'the gated layer has three matrices: gate, up and down'
    assert missing != 2048, 'there is one more norm after the last block'
    assert missing not in (22 * 2 * 2048, 22 * 2 * 2048 + 2048), 'each norm has a scale of 2048 numbers'
    assert missing != -(22 * 2 * 2048 + 2048), 'RMSNorm has a scale and no shift'
    assert n_parameters == right, f'one block has {two - one:,} parameters here: compare part by part'

@test_case(points=None, hidden=False)
def test_cache_bytes(cache_bytes):
    from minillm.generation import ContiguousCache
    cache = ContiguousCache(22, 1, 4, 2048, 64)
    right = sum((x.numel() for layer in cache.layers for x in (layer.keys, layer.values))) * 2
    assert cache_bytes != right / 2, 'keys AND values are kept, at two bytes a number: one of the two factors is missing'
    assert cache_bytes != right * 2, 'two bytes a number, not four'
    assert cache_bytes != right * 8, 'only key-value heads are kept: 4, not 32'
    assert cache_bytes != right / 22, 'every one of the 22 blocks keeps its own keys and values'
    assert cache_bytes != right / 2048, 'that is for one token; the text has 2048'
    assert cache_bytes == right, 'for each token and block: 2 (keys and values) times 4 heads times 64 numbers'

