"""The registry is complete, consistent and needs no network."""

import subprocess
import sys

import pytest

from minillm.assets import ASSETS, GROUPS, UnknownAssetError, info, names
from minillm.assets.registry import expand


@pytest.mark.parametrize("name", names())
def test_record_is_complete(name):
    asset = info(name)
    assert asset.name == name and len(asset.sha256) == 64
    assert int(asset.sha256, 16) > 0
    assert asset.size > 0 and asset.download > 0
    assert asset.license and asset.note and asset.version[0].isdigit()
    assert not any(m.startswith("/") or ".." in m for m in asset.members)
    if not asset.is_file and asset.strip:
        assert asset.strip.endswith("/")
        assert all(m.startswith(asset.strip) for m in asset.members)


def test_hashes_differ():
    assert len({a.sha256 for a in ASSETS.values()}) == len(ASSETS)


def test_known_hashes():
    """The two hashes that tiktoken itself pins for its rank files."""
    assert info("cl100k").sha256.startswith("223921b76ee99bde995b7ff738513eef")
    assert info("o200k").sha256.startswith("446a9538cb6c348e3516120d7c08b09f")


def test_groups_name_assets_and_stay_small():
    for members in GROUPS.values():
        assert set(members) <= set(ASSETS)
    assert sum(info(n).download for n in GROUPS["chapters"]) < 350e6


def test_unknown_name_suggests_a_known_one():
    with pytest.raises(UnknownAssetError, match="shakespeare"):
        info("shakespear")
    with pytest.raises(ValueError, match="--list"):
        info("")


def test_expand_replaces_groups_and_drops_repeats():
    assert expand(["human-eval", "chapters", "gpt2-bpe"]) == ["human-eval", *GROUPS["chapters"]]


def test_import_touches_nothing(tmp_path):
    """Importing neither creates the cache nor loads PyTorch."""
    code = "import sys, minillm.assets; assert 'torch' not in sys.modules"
    cache = tmp_path / "cache"
    subprocess.run(
        [sys.executable, "-c", code], check=True, env={"MINILLM_CACHE": str(cache), "PATH": ""}
    )
    assert not cache.exists()
