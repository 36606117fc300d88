import json

import pytest

from minillm.exercises.submissions import Unreadable, find, read, recognize

SETS = ["02_tokenization", "05_attention"]


def write(path, cells, metadata=None, **more):
    cells = [{"cell_type": kind, "source": source} for kind, source in cells]
    path.write_text(json.dumps({"cells": cells, "metadata": metadata or {}, **more}))
    return path


def test_reads_code_cells_only_as_text_or_lines(tmp_path):
    cells = [("markdown", "# x"), ("code", ["a = 1\n", "b = 2"]), ("code", "c = 3")]
    path = write(tmp_path / "a.ipynb", cells, {"minillm": {"exercise": "05_attention"}})
    submission = read(path, SETS)
    assert submission.cells == ["a = 1\nb = 2", "c = 3"]
    assert submission.slug == "05_attention"


def test_metadata_counts_before_the_code(tmp_path):
    assert recognize("02_tokenization", ['grader("05_attention")'], SETS) == "02_tokenization"
    assert recognize(None, ["grader = exercises.grader( '05_attention' )"], SETS) == "05_attention"
    assert recognize("98_none", ['grader("05_attention")'], SETS) == "05_attention"
    with pytest.raises(Unreadable, match=r"98_none.*02_tokenization, 05_attention"):
        recognize("98_none", [], SETS)


@pytest.mark.parametrize("metadata", [[], "text", {"minillm": []}, {"minillm": {"exercise": 5}}])
def test_odd_metadata_is_a_message_not_a_crash(tmp_path, metadata):
    path = write(tmp_path / "a.ipynb", [("code", "x = 1")], metadata)
    with pytest.raises(Unreadable):
        read(path, SETS)


def test_size_limit_is_exact(tmp_path):
    path = write(tmp_path / "a.ipynb", [("code", 'grader("05_attention")')])
    size = path.stat().st_size
    assert read(path, SETS, limit=size).slug == "05_attention"
    with pytest.raises(Unreadable, match="larger than"):
        read(path, SETS, limit=size - 1)


def test_finds_notebooks_at_any_depth_and_follows_no_link(tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    write(outside / "secret.ipynb", [])
    folder = tmp_path / "in"
    (folder / "b" / ".ipynb_checkpoints").mkdir(parents=True)
    write(folder / "b" / "2.ipynb", [])
    write(folder / "b" / ".ipynb_checkpoints" / "2-checkpoint.ipynb", [])
    write(folder / "1.ipynb", [])
    (folder / "notes.txt").write_text("")
    (folder / "linked").symlink_to(outside)
    assert [p.relative_to(folder).as_posix() for p in find(folder)] == ["1.ipynb", "b/2.ipynb"]
    with pytest.raises(ValueError, match="not a folder"):
        list(find(folder / "none"))


@pytest.mark.parametrize(
    "source", ["import ctypes", "x.gi_frame.f_back", "open('solutions/x')", "import socket"]
)
def test_suspicious_words_are_pointed_out(tmp_path, source):
    path = write(tmp_path / "a.ipynb", [("code", source)])
    assert read(path, SETS, slug="05_attention").suspicious
