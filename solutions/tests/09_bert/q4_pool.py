from otter.test_files import test_case

OK_FORMAT = False

name = "q4_pool"
points = 3

@test_case(points=None, hidden=False)
def test_vectors(sentence_vectors):
    import torch
    g = torch.Generator().manual_seed(0)
    hidden = torch.randn(3, 7, 5, generator=g, dtype=torch.float64)
    text = torch.tensor([[2, 2, 2, 0, 0, -1, -1], [4, 1, 1, 1, 1, 1, -1], [3, 3, 3, 3, -1, -1, -1]])
    given, given_text = (hidden.clone(), text.clone())
    try:
        out = sentence_vectors(given, given_text, 5)
    except NotImplementedError:
        raise
    except (IndexError, RuntimeError) as error:
        raise AssertionError(f'your function stops ({error}): -1 is padding and no text, leave those tokens out') from error
    assert out is not None and tuple(out.shape) == (5, 5), 'one vector of width 5 for each of the five texts is wanted'
    assert torch.equal(given, hidden) and torch.equal(given_text, text), 'your function changed its input'
    unit = lambda x: x / x.norm(dim=-1, keepdim=True)
    rows = [hidden[text == k] for k in range(5)]
    right = torch.stack([row.mean(0) for row in rows])
    assert not torch.allclose(out, right), 'the vectors must have length 1: divide by the norm'
    lengths = out.norm(dim=-1)
    assert not (lengths - 1).abs().max() > 1e-06, f'the vectors have lengths {[round(v, 2) for v in lengths.tolist()]}: the norm is taken over the last axis'
    last = torch.stack([row[-1] for row in rows])
    assert not torch.allclose(out[:4], unit(last)[:4]), 'of each text only the last token counts: `sums[text] += hidden` does not add where an index comes twice'
    first = torch.stack([row[0] for row in rows])
    assert not torch.allclose(out, unit(first)), 'that is the first token of each text; the mean of all its tokens is wanted'
    each = torch.stack([unit(row).mean(0) for row in rows])
    assert not torch.allclose(out, unit(each)), 'normalize once, at the end: not every token before the mean'
    biggest = torch.stack([row.amax(0) for row in rows])
    assert not torch.allclose(out, unit(biggest)), 'that is the largest entry over the tokens, not the mean'
    whole = torch.stack([hidden[(text == k).any(1)][0].mean(0) for k in range(5)])
    assert not torch.allclose(out, unit(whole)), 'that is the mean of the whole row: other texts and padding stand in it'
    padding = hidden[text < 0].sum(0)
    for k in (0, 4):
        polluted = torch.stack([row.sum(0) + (padding if i == k else 0) for i, row in enumerate(rows)])
        assert not torch.allclose(out, unit(polluted)), f'padding was added to text {k}: -1 is no text, leave those tokens out'
    gap = (out - unit(right)).abs().max().item()
    assert gap < 1e-09, f"differs by {gap:.2g} from the mean of each text's own tokens, brought to length 1"

@test_case(points=None, hidden=False)
def test_padding_does_not_matter(sentence_vectors):
    import torch
    g = torch.Generator().manual_seed(1)
    hidden = torch.randn(2, 9, 6, generator=g)
    text = torch.tensor([[-1, -1, 1, 1, 1, -1, 0, 0, 0], [2] * 9])
    together = sentence_vectors(hidden, text, 3)
    alone = sentence_vectors(hidden[:1, 2:5], torch.zeros(1, 3).long(), 1)
    assert torch.allclose(alone[0], together[1], atol=1e-05), 'a text alone and the same text in a row with others must get one vector'
    other = hidden.masked_fill((text < 0)[..., None], 1000000.0)
    assert torch.allclose(sentence_vectors(other, text, 3), together, atol=1e-05), 'what stands at padding must not matter'
    swapped = sentence_vectors(hidden.flip(0), text.flip(0), 3)
    assert torch.allclose(swapped, together, atol=1e-05), 'in which row a text stands must not matter'

@test_case(points=None, hidden=True)
def test_against_the_library(sentence_vectors):
    import torch
    from minillm.models.bert import bert
    from minillm.models.bert_heads import SentenceEncoder
    torch.manual_seed(0)
    model = SentenceEncoder(bert(vocab_size=30, max_seq_len=8, d_model=12, n_layers=1, n_heads=2)).eval()
    texts = [torch.randint(30, (1, length)) for length in (5, 2, 7, 3)]
    hidden, text = (torch.randn(2, 10, 12), torch.full((2, 10), -1))
    with torch.no_grad():
        for k, (row, start) in enumerate(((0, 0), (0, 5), (1, 0), (1, 7))):
            hidden[row, start:start + texts[k].shape[1]] = model.encoder(texts[k])[0]
            text[row, start:start + texts[k].shape[1]] = k
        right = torch.cat([model(ids) for ids in texts])
        gap = (sentence_vectors(hidden, text, 4) - right).abs().max().item()
    assert gap < 1e-05, f"differs from minillm's SentenceEncoder, each text alone, by {gap:.2g}"

