"""Similarity against gensim and scipy; wrong versions by name."""

import pytest
import torch
from gensim.models import KeyedVectors
from scipy.stats import spearmanr

from minillm.evaluation.similarity import (
    AnalogyScore,
    analogy,
    cosine,
    nearest,
    ranks,
    read_analogies,
    read_word_pairs,
    score_analogies,
    score_word_pairs,
    spearman,
    unit,
)

V, D = 60, 5


def table(seed=0):
    """Vectors of very different lengths, so that forgetting to normalize shows."""
    generator = torch.Generator().manual_seed(seed)
    vectors = torch.randn(V, D, generator=generator)
    return vectors * torch.rand(V, 1, generator=generator).mul(3).exp()


def keyed(vectors):
    kv = KeyedVectors(D)
    kv.add_vectors([f"w{i}" for i in range(V)], vectors.numpy())
    return kv


def some_questions(n=80):
    generator = torch.Generator().manual_seed(1)
    rows = torch.rand(n, V, generator=generator).argsort(1)[:, :4]
    return rows


def test_nearest_is_gensims():
    vectors = table()
    kv = keyed(vectors)
    scores, rows = nearest(vectors, vectors[:9], 7, exclude=torch.arange(9)[:, None])
    for i in range(9):
        expected = kv.most_similar(f"w{i}", topn=7)
        assert [f"w{r}" for r in rows[i].tolist()] == [word for word, _ in expected]
        theirs = torch.tensor([score for _, score in expected])
        torch.testing.assert_close(scores[i], theirs, atol=1e-5, rtol=0)


def gensims_answers(vectors, questions):
    kv = keyed(vectors)
    return torch.tensor(
        [
            [int(word[1:]) for word, _ in kv.most_similar([f"w{b}", f"w{c}"], [f"w{a}"], topn=3)]
            for a, b, c in questions.tolist()
        ]
    )


def test_analogies_are_gensims():
    vectors, questions = table(), some_questions()[:, :3]
    assert torch.equal(analogy(vectors, questions, 3), gensims_answers(vectors, questions))


def unnormalized(vectors, questions, k=1):
    a, b, c = vectors[questions].unbind(1)
    return nearest(vectors, b - a + c, k, exclude=questions)[1]


def wrong_sign(vectors, questions, k=1):
    return analogy(vectors, questions[:, [1, 0, 2]], k)


def with_the_question(vectors, questions, k=1):
    return analogy(vectors, questions, k, exclude=False)


def by_dot_product(vectors, questions, k=1):
    a, b, c = unit(vectors)[questions].unbind(1)
    scores = ((b - a + c) @ vectors.mT).scatter(1, questions, -torch.inf)
    return scores.topk(k).indices


@pytest.mark.parametrize("wrong", [unnormalized, wrong_sign, with_the_question, by_dot_product])
def test_wrong_analogies_are_rejected(wrong):
    vectors, questions = table(), some_questions()[:, :3]
    assert not torch.equal(wrong(vectors, questions, 3), gensims_answers(vectors, questions))


def test_score_is_gensims(tmp_path):
    vectors = table()
    questions = some_questions(300)
    best = analogy(vectors, questions[:, :3])[:, 0]
    questions[::3, 3] = best[::3]  # a third of the questions has the answer that is found
    lines = [" ".join(f"W{i}" for i in row) for row in questions.tolist()]
    path = tmp_path / "questions.txt"
    path.write_text("\n".join([": one", *lines[:200], ": two", *lines[200:], "w0 w1 w2 Never"]))
    ids = {f"w{i}": i for i in range(V)}
    sections = read_analogies(path)
    assert [len(s) for s in sections.values()] == [200, 101]
    score, _ = keyed(vectors).evaluate_word_analogies(str(path))
    parts = [score_analogies(vectors, ids, s) for s in sections.values()]
    assert parts[1].skipped == 1
    right, asked = sum(p.right for p in parts), sum(p.asked for p in parts)
    assert asked == 300 and right >= 100
    assert right / asked == pytest.approx(score)


def test_spearman_is_scipys_with_ties():
    generator = torch.Generator().manual_seed(3)
    a = torch.randint(6, (50,), generator=generator).double()
    b = a + 3 * torch.randn(50, generator=generator).double()
    assert spearman(a, b) == pytest.approx(spearmanr(a.numpy(), b.numpy()).statistic, abs=1e-12)
    naive = torch.argsort(torch.argsort(a)).double()  # wrong: ties in order of appearance
    x, y = naive - naive.mean(), ranks(b) - ranks(b).mean()
    assert abs(float((x @ y) / (x.norm() * y.norm())) - spearman(a, b)) > 1e-3


def test_word_pairs(tmp_path):
    path = tmp_path / "pairs.tsv"
    lines = ["# comment", "W0\tw1\t3.5", "w2\tw3\t9", "w4\tw5\t1.25", "w6\tabsent\t2"]
    path.write_text("\n".join(lines) + "\n")
    pairs = read_word_pairs(path)
    assert pairs[0] == ("w0", "w1", 3.5) and len(pairs) == 4
    vectors, ids = table(), {f"w{i}": i for i in range(V)}
    rho, n = score_word_pairs(vectors, ids, pairs)
    theirs = keyed(vectors).evaluate_word_pairs(str(path), restrict_vocab=V)[1].statistic
    assert n == 3 and rho == pytest.approx(theirs)


def test_zero_vectors_and_empty_scores():
    assert cosine(torch.zeros(3), torch.ones(3)) == 0
    assert torch.equal(unit(torch.zeros(2, 3)), torch.zeros(2, 3))
    assert AnalogyScore(0, 0, 3).accuracy != AnalogyScore(0, 0, 3).accuracy


def test_bad_input_is_named(tmp_path):
    with pytest.raises(ValueError, match="k is 60"):
        nearest(table(), table()[:1], 60, exclude=torch.tensor([[0]]))
    with pytest.raises(ValueError, match="at least 2"):
        spearman(torch.ones(1), torch.ones(1))
    path = tmp_path / "x.txt"
    path.write_text("a b c\n")
    with pytest.raises(ValueError, match="four words"):
        read_analogies(path)
    with pytest.raises(ValueError, match="tab"):
        read_word_pairs(path)
    with pytest.raises(ValueError, match="vocabulary"):
        score_word_pairs(table(), {"w0": 0}, [("w0", "w9", 1.0)])
