"""Corpora: counts that ASSETS records, cleaning, splits by document, and damaged files."""

import hashlib

import pytest

from minillm import assets
from minillm.data import corpus

EXPECTED = {  # documents, words
    "shakespeare": (42, 905_000),
    "sotu": (249, 2_000_000),
    "basic-english": (1_190, 841_000),
    "wiki-clean": (30, 158_000),
}


@pytest.mark.parametrize("name", corpus.NAMES)
def test_sizes(name):
    documents = corpus.documents(name)
    n_documents, n_words = EXPECTED[name]
    assert len(documents) == n_documents
    assert sum(len(text.split()) for text in documents) == pytest.approx(n_words, rel=0.03)
    assert all(text == text.strip() and text for text in documents)
    assert not any("\r" in text or "\ufeff" in text or "\ufffd" in text for text in documents)
    assert corpus.load(name).startswith(documents[0] + "\n\n" + documents[1])


def test_basic_english_is_cut_at_chapters_and_free_of_marks():
    documents = corpus.documents("basic-english")
    assert documents[0].startswith("At the first God made the heaven and the earth.")
    assert documents[2].startswith("Now the snake was wiser than any beast of the field")
    assert documents[50].startswith("Now these are the names of the sons of Israel")
    assert documents[1189].startswith("And I saw a river of water of life")
    assert all(text[0].isupper() or text[0] == "(" for text in documents)
    assert sum(text[-1] in ".?!:;,)" for text in documents) > 1_180
    assert not any("\\" in text or "*" in text or "  " in text for text in documents)
    assert any("sorrow. Now the land was in bitter need" in text for text in documents)


def test_unknown_corpus_names_the_choice():
    with pytest.raises(ValueError, match=r"'tinystories'.*shakespeare"):
        corpus.documents("tinystories")


@pytest.mark.parametrize(("name", "file"), [("shakespeare", "x.txt"), ("wiki-clean", "other.txt")])
def test_folder_without_the_text(name, file, tmp_path, monkeypatch):
    (tmp_path / file).write_text("hello")
    monkeypatch.setattr(assets, "fetch", lambda asset: tmp_path)
    with pytest.raises(ValueError, match="fetch it again"):
        corpus.documents(name)


@pytest.mark.parametrize("source", ["x = 1", "Bible(1)", "Bible(1, __import__('os'), {1: 2})"])
def test_damaged_bible_is_parsed_and_never_run(source, tmp_path, monkeypatch):
    path = tmp_path / "plain_text_bible.py"
    path.write_text(source)
    monkeypatch.setattr(assets, "fetch", lambda asset: path)
    with pytest.raises(ValueError, match="fetch it again"):
        corpus.documents("basic-english")


DOCUMENTS = [hashlib.sha256(bytes([i])).hexdigest() * (1 + i % 7) for i in range(101)]


@pytest.mark.parametrize("fraction", [0.05, 0.1, 0.5, 0.9])
def test_split_is_by_document_and_of_the_right_size(fraction):
    training, held_out = corpus.split(DOCUMENTS, fraction, seed=1)
    assert sorted(training + held_out) == sorted(DOCUMENTS)
    assert not set(training) & set(held_out)
    longest = max(map(len, DOCUMENTS))
    wanted = fraction * sum(map(len, DOCUMENTS))
    assert wanted <= sum(map(len, held_out)) < wanted + longest
    assert training == [text for text in DOCUMENTS if text in set(training)]  # order kept


def test_split_follows_its_seed():
    assert corpus.split(DOCUMENTS, seed=3) == corpus.split(DOCUMENTS, seed=3)
    assert corpus.split(DOCUMENTS, seed=3) != corpus.split(DOCUMENTS, seed=4)


def test_split_leaves_training_something():
    training, held_out = corpus.split(["a", "b"], 0.99)
    assert len(training) == len(held_out) == 1


@pytest.mark.parametrize("fraction", [0, 1, -0.1, 1.5, float("nan")])
def test_split_refuses_a_fraction(fraction):
    with pytest.raises(ValueError, match="fraction is"):
        corpus.split(DOCUMENTS, float(fraction))


def test_split_refuses_one_document():
    with pytest.raises(ValueError, match="1 document"):
        corpus.split(["one text"])


def test_split_refuses_a_string_which_is_a_sequence_of_characters():
    with pytest.raises(ValueError, match="'one text' is one string; give a list"):
        corpus.split("one text", 0.5)
