from otter.test_files import test_case

OK_FORMAT = False

name = "q3_rows"
points = 3

@test_case(points=None, hidden=False)
def test_order(to_halves):
    import torch
    rows = torch.arange(36.0).view(12, 3)
    given = rows.clone()
    out = to_halves(given, 2)
    assert out is not None, 'to_halves returned nothing: is the `return` missing?'
    assert torch.equal(given, rows), 'your function changed its input: make a new tensor'
    assert tuple(out.shape) == (12, 3), f'the result must have the shape of the matrix, not {tuple(out.shape)}'
    columns = out - out[:, :1]
    assert (columns == torch.arange(3)).all(), 'only whole rows move: here columns have moved, or rows were mixed'
    order = (out[:, 0] / 3).int().tolist()
    assert order != list(range(12)), 'no row has moved: the even rows of each head come first'
    assert order != [0, 2, 4, 6, 8, 10, 1, 3, 5, 7, 9, 11], 'every head is reordered by itself: here there are two, of six rows'
    assert order != [0, 3, 1, 4, 2, 5, 6, 9, 7, 10, 8, 11], 'that is the way back, from halves to neighbors'
    assert order != [1, 3, 5, 0, 2, 4, 7, 9, 11, 6, 8, 10], 'the first numbers of the pairs (rows 0, 2, 4) come first'
    assert order[0] == 0 and order[3] == 1, f'rows 0 and 1, a pair in the file, must end at 0 and 3, half a head apart; the order is {order}'
    assert order == [0, 2, 4, 1, 3, 5, 6, 8, 10, 7, 9, 11], f'with two heads of six rows the order is {order}'

@test_case(points=None, hidden=False)
def test_scores_stay_the_same(to_halves):
    import torch
    from minillm.nn import Rotary, rotary_frequencies, rotate_halves, rotate_pairs
    torch.manual_seed(0)
    x, places = (torch.randn(1, 5, 7, dtype=torch.float64), torch.arange(5)[None])
    query, key = torch.randn(2, 16, 7, dtype=torch.float64)

    def scores(query, key, rotate):
        turn = Rotary(rotary_frequencies(8, base=50), rotate=rotate)
        heads = [(x @ w.T).view(1, 5, 2, 8).transpose(1, 2) for w in (query, key)]
        q, k = (turn(y, places) for y in heads)
        return q @ k.mT
    right = scores(query, key, rotate_pairs)
    made = (to_halves(query, 2), to_halves(key, 2))
    assert all((y.shape == (16, 7) for y in made)), f'16 rows of 7 become {tuple(made[0].shape)}: give back the shape of `weight`'
    found = scores(*made, rotate_halves)
    gap = (found - right).abs().max().item()
    assert gap < 1e-09, f"attention's scores with halves differ by {gap:.2g} from those of the file with neighbors"

@test_case(points=None, hidden=True)
def test_other_sizes(to_halves):
    import torch
    from minillm.nn import pairs_to_halves
    torch.manual_seed(1)
    for n_heads, p, d in ((1, 2, 3), (3, 64, 5), (9, 4, 1), (5, 10, 6)):
        weight = torch.randn(n_heads * p, d)
        out, right = (to_halves(weight, n_heads), pairs_to_halves(weight, n_heads))
        assert out.shape == right.shape, f'for {n_heads} heads of {p} rows and d = {d} the result is {tuple(out.shape)}'
        assert (out - right).abs().max() < 1e-09, f'wrong for {n_heads} heads of {p} rows and d = {d}'

