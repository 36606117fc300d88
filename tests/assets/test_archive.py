"""extract and manifest against hand-made hostile archives, without pip."""

import hashlib
import tarfile

import pytest

from minillm.assets import MemberError
from minillm.assets.archive import extract, manifest


@pytest.mark.parametrize(
    "path",
    [
        "tiny_pkg/data/../../../evil.txt",
        "tiny_pkg/data//evil.txt",
        "tiny_pkg/data/..\\evil.txt",
        "tiny_pkg/data/C:evil.txt",
        "tiny_pkg/data/..",
    ],
)
@pytest.mark.parametrize("sdist", [False, True], ids=["wheel", "sdist"])
def test_unsafe_paths(shelf, register, tmp_path, path, sdist):
    archive = (shelf.sdist if sdist else shelf.wheel)({path: b"evil"})
    asset = register({"tiny_pkg/data/evil.txt": b"evil"}, sdist=sdist)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(MemberError, match="unsafe path"):
        extract(archive, asset, tmp_path / "out")
    assert sorted(tmp_path.rglob("*")) == before


def test_absolute_path(shelf, register, tmp_path):
    archive = shelf.wheel({"/tmp/evil.txt": b"evil"})
    asset = register({"evil.txt": b"evil"}, members=("*evil*",), strip="")
    with pytest.raises(MemberError, match="unsafe path '/tmp/evil"):
        extract(archive, asset, tmp_path / "out")


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE]
)
def test_links_and_devices(shelf, register, tmp_path, kind):
    archive = shelf.sdist(extra=[("tiny_pkg/data/three.txt", kind, "/etc/passwd")])
    with pytest.raises(MemberError, match="not a regular file"):
        extract(archive, register(sdist=True), tmp_path / "out")


def test_unasked_members_are_not_written(shelf, register, tmp_path):
    archive = shelf.wheel({"tiny_pkg/__init__.py": b"boom", "tiny_pkg/data/one.txt": b"1"})
    found = extract(archive, register({"tiny_pkg/data/one.txt": b"1"}), tmp_path / "out")
    assert [p.name for p in found.rglob("*")] == ["one.txt"]


def test_manifest_by_hand(tmp_path):
    """Equal to `sha256sum` lines in the order of their paths, hashed once more."""
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "x.txt").write_bytes(b"1")
    (tmp_path / "a.txt").write_bytes(b"2")
    lines = "".join(
        f"{hashlib.sha256(data).hexdigest()}  {name}\n"
        for name, data in [("a.txt", b"2"), ("b/x.txt", b"1")]
    )
    assert manifest(tmp_path) == hashlib.sha256(lines.encode()).hexdigest()
    assert manifest(tmp_path / "a.txt") == hashlib.sha256(b"2").hexdigest()


@pytest.mark.parametrize("change", ["rename", "move", "empty file"])
def test_manifest_sees_names_and_places(tmp_path, change):
    (tmp_path / "a.txt").write_bytes(b"1")
    before = manifest(tmp_path)
    if change == "rename":
        (tmp_path / "a.txt").rename(tmp_path / "b.txt")
    elif change == "move":
        (tmp_path / "d").mkdir()
        (tmp_path / "a.txt").rename(tmp_path / "d" / "a.txt")
    else:
        (tmp_path / "z").touch()
    assert manifest(tmp_path) != before
