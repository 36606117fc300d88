"""Word2Vec: gensim where it can be an oracle, brute force where not, and planted analogies."""

import math

import pytest
import torch
import torch.nn.functional as F
from gensim.models import Word2Vec as GensimWord2Vec

from minillm.data.windows import count_words, encode_words
from minillm.evaluation.similarity import score_analogies
from minillm.models.word2vec import (
    CBOW,
    HierarchicalSoftmax,
    NegativeSampling,
    SkipGram,
    hierarchical_loss,
    huffman,
    negative_sampling_loss,
    noise_distribution,
    train_word2vec,
)

D = 6
COUNTS = torch.tensor([60, 41, 32, 22, 14, 8, 6, 2, 1])  # no ties while the tree is built


def noisy(module, seed=0, scale=0.3):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in module.parameters():
            p += scale * torch.randn(p.shape, generator=generator, dtype=p.dtype)
    return module.double()


def texts_with(counts):
    return [[f"w{i}"] * int(n) for i, n in enumerate(counts)]


def gensims(counts, **options):
    options = {"min_count": 1, "vector_size": D, "window": 1, "sample": 0, "workers": 1} | options
    return GensimWord2Vec(texts_with(counts), epochs=1, **options)


# ------------------------------------------------------------------------------- the Huffman tree


def test_huffman_codes_are_gensims():
    oracle, tree = gensims(COUNTS, hs=1, negative=0), huffman(COUNTS)
    for i in range(len(COUNTS)):
        code = oracle.wv.get_vecattr(f"w{i}", "code")
        points = oracle.wv.get_vecattr(f"w{i}", "point")
        n = int(tree.lengths[i])
        assert [int(s < 0) for s in tree.signs[i, :n]] == list(code)
        assert tree.nodes[i, :n].tolist() == list(points)


def shortest(counts):
    """The least Σ count · length over all binary trees, by trying every way to join."""
    if len(counts) == 1:
        return 0
    best = math.inf
    for i in range(len(counts)):
        for j in range(i):
            rest = [c for k, c in enumerate(counts) if k not in (i, j)]
            joined = counts[i] + counts[j]
            best = min(best, joined + shortest((*rest, joined)))
    return best


@pytest.mark.parametrize("counts", [(5, 5, 5, 5), (9, 4, 3, 1, 1), (1, 1), (8, 1, 1, 1, 1, 1)])
def test_huffman_is_the_shortest_tree(counts):
    lengths = huffman(torch.tensor(counts)).lengths
    assert int((torch.tensor(counts) * lengths).sum()) == shortest(counts)
    assert sum(2.0 ** -int(n) for n in lengths) == 1  # a full tree: Kraft's sum


# --------------------------------------------------------------- losses and gradients, brute force


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def test_negative_sampling_loss_and_gradient():
    torch.manual_seed(0)
    h, u, noise = torch.randn(4, D), torch.randn(4, D), torch.randn(4, 3, D)
    leaves = [x.double().requires_grad_() for x in (h, u, noise)]
    losses = negative_sampling_loss(*leaves)
    losses.sum().backward()
    grads, (h, u, noise) = [x.grad for x in leaves], [x.detach() for x in leaves]
    for i in range(4):
        true = sigmoid(float(h[i] @ u[i]))
        false = [sigmoid(float(h[i] @ n)) for n in noise[i]]
        expected = -math.log(true) - sum(math.log(1 - p) for p in false)
        assert losses[i].item() == pytest.approx(expected, abs=1e-12)
        grad = (true - 1) * u[i] + sum(p * n for p, n in zip(false, noise[i], strict=True))
        assert torch.allclose(grads[0][i], grad, atol=1e-12)
        assert torch.allclose(grads[1][i], (true - 1) * h[i], atol=1e-12)
        assert torch.allclose(grads[2][i, 1], false[1] * h[i], atol=1e-12)


def test_shared_noise_is_the_same_law():
    """Over all words drawn as often as the law says, both forms have one expectation."""
    law = noise_distribution(COUNTS)
    private = noisy(NegativeSampling(COUNTS, D, 4))
    shared = NegativeSampling(COUNTS, D, 4, shared=7).double()
    shared.load_state_dict(private.state_dict())
    torch.manual_seed(3)
    hidden, targets = torch.randn(2, D).double(), torch.tensor([[1, -1, 4], [8, 0, -1]])
    generator = torch.Generator().manual_seed(4)
    mean = [
        torch.stack([form(hidden, targets, generator) for _ in range(4000)]).mean(0)
        for form in (private, shared)
    ]
    against = 4 * (F.softplus(hidden @ private.weight.mT) @ law)
    positive = F.softplus(-(private.weight[targets.clamp(min=0)] @ hidden[..., None])[..., 0])
    expected = (positive + against[:, None]) * (targets >= 0)
    for measured in mean:
        assert torch.equal(measured[targets < 0], torch.zeros(2).double())
        assert (measured - expected).abs().max() < 0.03
    wrong = (positive + against[:, None] / 4) * (targets >= 0)  # n_noise forgotten
    assert (mean[1] - wrong).abs().max() > 0.3


def test_noise_law_by_chi_square():
    module = NegativeSampling(COUNTS, D)
    n = 200_000
    drawn = module.draw((n,), torch.Generator().manual_seed(5)).bincount(minlength=len(COUNTS))
    powered = torch.tensor([c**0.75 for c in COUNTS.tolist()], dtype=torch.float64)

    def chi_square(law):
        return float(((drawn - n * law) ** 2 / (n * law)).sum())

    assert chi_square(powered / powered.sum()) < 26.1  # 0.999 quantile at 8 degrees of freedom
    assert chi_square(COUNTS / COUNTS.sum()) > 1000  # wrong: without the power
    assert chi_square(torch.full((9,), 1 / 9)) > 1000  # wrong: uniform


def test_hierarchical_softmax_sums_to_one_and_has_its_gradient():
    module = noisy(HierarchicalSoftmax(COUNTS, D))
    hidden = torch.randn(5, D).double()
    log_p = module.log_prob(hidden)
    assert torch.allclose(log_p.exp().sum(1), torch.ones(5).double(), atol=1e-12)
    targets = torch.tensor([[0, 8], [3, -1], [1, 2], [7, 6], [5, 4]])
    losses = module(hidden, targets)
    assert torch.allclose(
        losses[targets >= 0], -log_p.gather(1, targets.clamp(min=0))[targets >= 0]
    )
    assert losses[1, 1] == 0
    module.zero_grad()
    losses.sum().backward()
    tree, expected = huffman(COUNTS), torch.zeros_like(module.weight)
    for row, words in zip(hidden, targets.tolist(), strict=True):
        for word in (w for w in words if w >= 0):
            for node, sign in zip(tree.nodes[word], tree.signs[word].tolist(), strict=True):
                p = sigmoid(sign * float(row @ module.weight[node]))
                expected[node] += abs(sign) * sign * (p - 1) * row
    assert torch.allclose(module.weight.grad, expected, atol=1e-12)


def test_padding_of_short_paths_counts_nothing():
    tree = huffman(COUNTS)
    h, nodes = torch.randn(D).double(), torch.randn(tree.nodes.shape[1], D).double()
    signs = tree.signs[0].double()
    n = int(tree.lengths[0])
    short = hierarchical_loss(h, nodes[:n], signs[:n])
    assert torch.allclose(hierarchical_loss(h, nodes, signs), short)
    unmasked = F.softplus(-signs * (nodes @ h)).sum()  # wrong: log σ(0) for each empty place
    assert (unmasked - short).abs() > 0.1


# ---------------------------------------------------------- one pass of gensim, pair by pair (SGD)

SENTENCE = ["w0", "w3", "w1", "w0", "w5", "w2"]


def gensim_pass(sg, swap=False, corrected=False):
    """The largest difference of vectors after one pass, and how far they moved."""
    oracle = gensims(COUNTS, sg=sg, hs=1, negative=0, cbow_mean=1, seed=3)
    words = count_words(texts_with(COUNTS), 1)
    kind = SkipGram if sg else CBOW
    ours = kind(len(words), D, HierarchicalSoftmax(words.counts, D)).double()
    generator = torch.Generator().manual_seed(1)
    vectors = torch.randn(len(words), D, generator=generator).double()
    nodes = torch.randn(len(words) - 1, D, generator=generator).double()
    with torch.no_grad():
        ours.vectors.weight.copy_(vectors), ours.output.weight.copy_(nodes)
    oracle.wv.vectors[:], oracle.syn1[:8] = (
        vectors.float().numpy(),
        nodes.float().numpy(),
    )  # one row is spare
    oracle.train([SENTENCE], total_examples=1, epochs=1, start_alpha=0.5, end_alpha=0.5)
    ids = [words.ids[w] for w in SENTENCE]
    for i, center in enumerate(ids):
        context = [ids[j] for j in (i - 1, i + 1) if 0 <= j < len(ids)]
        rows = [([c], [[center]]) for c in context] if sg else [([center], [context])]
        for one, others in rows:
            if swap:
                one, others = [others[0][0]], [[one[0]] * len(others[0])]
            loss, _ = ours(torch.tensor(one), torch.tensor(others))
            ours.zero_grad()
            loss.backward()
            if not sg and not corrected:
                ours.vectors.weight.grad *= len(others[0])
            with torch.no_grad():
                for p in ours.parameters():
                    p -= 0.5 * p.grad
    theirs = torch.tensor(oracle.wv.vectors).double(), torch.tensor(oracle.syn1[:8]).double()
    mine = ours.vectors.weight.detach(), ours.output.weight.detach()
    error = max(float((a - b).abs().max()) for a, b in zip(mine, theirs, strict=True))
    moved = max(float((a - b).abs().max()) for a, b in zip(mine, (vectors, nodes), strict=True))
    return error, moved


@pytest.mark.parametrize("sg", [0, 1], ids=["CBOW", "skip-gram"])
def test_one_pass_is_gensims(sg):
    """gensim looks the sigmoid up in a table of 1,000 places: hence the tolerance.

    Its CBOW (as Google's program) gives each context word the whole gradient of the mean, not its
    share of 1 / |C|; the derivative of the mean has the share (Irsoy, Benton and Stratos 2021).
    """
    error, moved = gensim_pass(sg)
    assert moved > 0.5 and error < 0.03


def test_the_derivative_of_the_mean_is_not_gensims():
    error, _ = gensim_pass(0, corrected=True)
    assert error > 0.1


def test_the_other_direction_is_rejected():
    error, _ = gensim_pass(1, swap=True)
    assert error > 0.1


# -------------------------------------------------------------------------------- whole models


def test_skip_gram_and_cbow_read_their_batch():
    output = noisy(HierarchicalSoftmax(COUNTS, D))
    skip, cbow = SkipGram(9, D, output).double(), CBOW(9, D, output).double()
    cbow.load_state_dict(skip.state_dict())
    centers, contexts = torch.tensor([2, 5, 7]), torch.tensor([[1, -1], [3, 0], [-1, -1]])
    v = skip.vectors.weight
    loss, n = skip(centers, contexts)
    log_p = output.log_prob(v)
    assert n == 3 and torch.allclose(loss, -(log_p[2, 1] + log_p[5, 3] + log_p[5, 0]))
    loss, n = cbow(centers, contexts)
    log_p = output.log_prob(torch.stack([v[1], (v[3] + v[0]) / 2]))
    assert n == 2 and torch.allclose(loss, -(log_p[0, 2] + log_p[1, 5]))


def planted(n=1000, seed=0):
    """Sentences of a world with two axes: five kinds of thing, four attributes of each.

    A word is a (kind, attribute) pair; its sentence holds words that speak of its kind and words
    that speak of its attribute. So kind_a − kind_b is one direction, whatever the attribute.
    """
    generator = torch.Generator().manual_seed(seed)
    kinds, attributes, speakers = 5, 4, 6
    draw = torch.rand(n, 2 + 6, generator=generator)
    texts = []
    for row in draw:
        k, a = int(row[0] * kinds), int(row[1] * attributes)
        about = [f"k{k}.{int(x * speakers)}" for x in row[2:5]]
        about += [f"a{a}.{int(x * speakers)}" for x in row[5:]]
        texts.append([*about[:2], about[3], f"x{k}{a}", *about[4:], about[2]])
    return texts, kinds, attributes


def recovered(model, words, kinds, attributes):
    """Share of all planted analogies x(k,a) : x(k,b) = x(l,a) : x(l,b) that 3CosAdd recovers."""
    things = [f"x{k}{a}" for k in range(kinds) for a in range(attributes)]
    rows = torch.tensor([words.ids[x] for x in things])
    ids = {x: i for i, x in enumerate(things)}
    questions = [
        (f"x{k}{a}", f"x{k}{b}", f"x{m}{a}", f"x{m}{b}")
        for k in range(kinds)
        for m in range(kinds)
        for a in range(attributes)
        for b in range(attributes)
        if k != m and a != b
    ]
    return score_analogies(model.vectors.weight.detach()[rows], ids, questions).accuracy


@pytest.mark.parametrize("kind", [SkipGram, CBOW])
@pytest.mark.parametrize("output", ["negative", "shared", "tree"])
def test_planted_analogies_are_recovered(kind, output):
    texts, kinds, attributes = planted()
    words = count_words(texts, 1)
    torch.manual_seed(0)
    outputs = {
        "negative": lambda: NegativeSampling(words.counts, 16, 5),
        "shared": lambda: NegativeSampling(words.counts, 16, 5, shared=32),
        "tree": lambda: HierarchicalSoftmax(words.counts, 16),
    }
    model = kind(len(words), 16, outputs[output]())
    before = recovered(model, words, kinds, attributes)
    stream = encode_words(texts, words)
    steps = list(
        train_word2vec(model, stream, words.counts, epochs=4, batch_size=128, lr=0.3, threshold=1.0)
    )
    assert [s.step for s in steps] == list(range(len(steps)))
    assert before < 0.2
    assert recovered(model, words, kinds, attributes) > 0.9


def test_training_twice_gives_the_same_bits():
    texts, *_ = planted(200)
    words = count_words(texts, 1)
    stream, tables = encode_words(texts, words), []
    for _ in range(2):
        torch.manual_seed(1)
        model = SkipGram(len(words), 8, NegativeSampling(words.counts, 8, 3))
        list(train_word2vec(model, stream, words.counts, epochs=1, batch_size=64))
        tables.append(model.vectors.weight.detach().clone())
    assert torch.equal(*tables)


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="at least 2"):
        huffman(torch.tensor([3]))
    with pytest.raises(ValueError, match="n_noise"):
        NegativeSampling(COUNTS, D, 0)
    with pytest.raises(ValueError, match="d_model"):
        HierarchicalSoftmax(COUNTS, 0)
