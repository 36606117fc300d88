from otter.test_files import test_case

OK_FORMAT = False

name = "q1_shapes_and_bytes"
points = 2

@test_case(points=None, hidden=False)
def test_weights_shape(weights_shape):
    shape = tuple(weights_shape)
    assert len(shape) == 4, 'the weights have four axes: batch, query heads, queries, keys'
    b, h, t, s = shape
    assert h != 4, 'key-value heads are shared, but each query head still has weights of its own'
    assert t != 1005, 'only the new tokens ask: the cached ones were queries in an earlier step'
    assert s not in (5, 1000), 'the keys are those in the cache and the new ones together'
    assert shape == (3, 16, 5, 1005), 'the axes are (batch, query heads, new tokens, all tokens)'

@test_case(points=None, hidden=False)
def test_cache_bytes(cache_bytes):
    right = sum((2 * (4 * 64 * 1005) * 2 for layer in range(24) for sequence in range(3)))
    ratio = cache_bytes / right
    assert ratio != 0.5, 'half of it is there: count keys and values, and two bytes for each number'
    assert ratio != 2, 'each number takes two bytes, and keys and values are counted once each'
    assert ratio != 4, 'the cache keeps the 4 key-value heads, not the 16 query heads: that is the point of sharing'
    assert ratio not in (1 / 24, 1 / 3, 1 / 72), 'every layer and every sequence has a cache of its own'
    assert ratio != 1000 / 1005, 'the 5 new tokens are in the cache too after this step'
    assert cache_bytes == right, '2 (K and V) x layers x batch x kv heads x tokens x head size x bytes'

