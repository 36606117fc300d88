from otter.test_files import test_case

OK_FORMAT = False

name = "q1_count"
points = 2

@test_case(points=None, hidden=False)
def test_parameters(parameters):
    import torch
    right = sum((p.numel() for p in torch.nn.GRU(300, 500, 3).parameters()))
    assert parameters != 3 * (3 * (300 * 500 + 500 * 500 + 1000)), 'only the first layer reads 300 numbers: the others read the 500 of the state below'
    assert parameters != right - 3 * 3 * 500, 'one bias vector is missing in each layer: PyTorch keeps two'
    assert parameters != right - 2 * 3 * 3 * 500, 'the biases are missing'
    assert parameters != right * 4 // 3, 'that is an LSTM: a GRU has three blocks, not four'
    assert parameters * 3 != right, 'a GRU has three blocks of rows: reset, update, candidate'
    assert parameters == right, 'for each layer: 3 x (inputs x state + state x state + 2 x state)'

@test_case(points=None, hidden=False)
def test_state_bytes(state_bytes):
    import torch
    _, h = torch.nn.GRU(300, 500, 3)(torch.zeros(1, 8, 300))
    right = h.numel() * h.element_size()
    assert state_bytes != 2 * right, 'only an LSTM has a cell beside its state; a number in float32 takes four bytes'
    assert state_bytes * 4 != right, 'count bytes, not numbers: float32 takes four'
    assert state_bytes * 3 != right, 'each of the three layers has a state of its own'
    assert state_bytes * 8 != right, 'each of the eight texts has a state of its own'
    assert state_bytes != 1000 * right, 'the state does not grow with the text: that is the point of it'
    assert state_bytes == right, 'layers x texts x width x 4 bytes'

@test_case(points=None, hidden=False)
def test_steps_in_a_row(steps_in_a_row):
    done = {}
    for layer in range(3):
        for token in range(1000):
            done[layer, token] = 1 + max(done.get((layer, token - 1), 0), done.get((layer - 1, token), 0))
    assert steps_in_a_row != 3000, 'that is how many steps there are; layers can work side by side on different tokens'
    assert steps_in_a_row != 1000, 'almost: when the first layer has read the last token, the layers above have not'
    assert steps_in_a_row != 1003, 'one too many: the last token of the top layer is the end of the chain'
    assert steps_in_a_row == done[2, 999], 'the longest chain passes every token once and every layer once'

