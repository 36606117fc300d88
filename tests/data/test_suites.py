"""Rows of the evaluation suites: as many as their authors say, and readable."""

import pytest

from minillm.data.suites import SUITES, examples, mmlu_subjects

SIZES = {
    "sst2": 872,
    "rte": 277,
    "mrpc": 408,
    "cb": 56,
    "copa": 100,
    "arc-easy": 570,
    "arc-challenge": 299,
    "boolq": 3270,
    "hellaswag": 10042,
    "piqa": 1838,
    "winogrande": 1267,
}


@pytest.mark.parametrize("name", SIZES)
def test_size_is_the_published_one(name):
    rows = examples(name)
    assert len(rows) == SIZES[name]
    assert all(row.keys() == rows[0].keys() for row in rows)


def test_sst2_has_sentences_with_two_labels():
    rows = examples("sst2")
    assert {row["label"] for row in rows} == {0, 1}
    assert sum(row["label"] for row in rows) == 444
    assert rows[0]["sentence"].startswith("it 's a charming")


def test_mmlu():
    assert len(mmlu_subjects()) == 57
    assert len(examples("mmlu/anatomy", "test")) == 135
    assert len(examples("mmlu/anatomy", "dev")) == 5


def test_unknown_names_are_told():
    with pytest.raises(ValueError, match=SUITES[0]):
        examples("sst")
    with pytest.raises(ValueError, match="it has validation"):
        examples("sst2", "train")
