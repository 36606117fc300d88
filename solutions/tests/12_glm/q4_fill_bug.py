from otter.test_files import test_case

OK_FORMAT = False

name = "q4_fill_bug"
points = 3

@test_case(points=None, hidden=False)
def test_what_predict_is_told(fill):
    calls, answers = ([], [31, 32, 33, 99, 34])

    def predict(tokens, places, inner, context):
        calls.append(([*tokens], [*places], [*inner], context))
        return answers[min(len(calls), len(answers)) - 1]
    text = [5, 70, 6, 7]
    span = fill(predict, list(text), 1, 71, 99, 9)
    assert span is not None, 'fill returned nothing: is the `return` missing?'
    assert calls, 'predict was never called'
    for i, (tokens, places, inner, context) in enumerate(calls):
        n = len(tokens) - 4
        assert tokens[:4] == text, f'call {i + 1}: the tokens begin with {tokens[:4]}, but part A must stay as it is'
        assert tokens[4:] == [71, 31, 32, 33][:i + 1], f'call {i + 1}: part B is {tokens[4:]}: the start token once, then what was written so far'
        assert context != len(tokens), f'call {i + 1}: part A is said to have {context} tokens, part B among them'
        assert context == 4, f'call {i + 1}: part A is said to have {context} tokens: it has 4, and does not grow while the span is written'
        assert places[:4] == [0, 1, 2, 3], f'call {i + 1}: part A stands at {places[:4]}, not at 0, 1, 2, 3'
        assert places[4:] != list(range(4, 4 + n)) or n == 0, f'call {i + 1}: part B counts on behind the text'
        assert places[4:] == [1] * n, f'call {i + 1}: part B stands at {places[4:]}; all its tokens stand at the hole, 1'
        assert inner == [0] * 4 + list(range(1, n + 1)), f'call {i + 1}: block positions {inner}: 0 in part A, then 1 for the start token, 2, 3, …'
    span = list(span)
    assert 99 not in span, 'the end token is no part of the span'
    assert 71 not in span, 'the start token is no part of the span'
    assert span == [31, 32, 33], f'the model said 31, 32, 33, end, and the span is {span}'

@test_case(points=None, hidden=False)
def test_the_limit(fill):
    count = []

    def predict(tokens, places, inner, context):
        count.append(1)
        return 40 + len(count)
    span = list(fill(predict, [5, 70], 1, 71, 99, 3))
    assert span == [41, 42, 43], f'without an end token the span has `limit` tokens, here 3, and yours is {span}'
    assert len(count) == 3, f'predict was called {len(count)} times for a limit of 3: stop when the span is full'
    assert list(fill(lambda *_: 99, [70, 5], 0, 71, 99, 3)) == [], 'a model that says end at once leaves the hole empty'

@test_case(points=None, hidden=False)
def test_on_a_model(fill):
    import torch
    from minillm.data.blank_infilling import BlankTokens
    from minillm.generation.infilling import fill_blanks
    from minillm.models.glm import glm
    torch.manual_seed(0)
    model = glm(vocab_size=33, max_seq_len=40, d_model=24, n_layers=2, n_heads=3).double().eval()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.3 * torch.randn_like(p))

    def predict(tokens, places, inner, context):
        with torch.no_grad():
            positions = torch.tensor([[list(places), list(inner)]])
            logits = model(torch.tensor([list(tokens)]), context=torch.tensor([context]), positions=positions)
        return int(logits[0, -1].argmax())
    for text in ([3, 30, 7, 9, 11], [30, 4, 4, 8, 1, 2], [9, 8, 7, 6, 5, 30]):
        hole = text.index(30)
        right = fill_blanks(model, text, BlankTokens(30, 31, 32), max_new_tokens=6)[0]
        out = list(fill(predict, list(text), hole, 31, 32, 6))
        assert out == right, f'for {text} the library fills {right}, and yours {out}'

