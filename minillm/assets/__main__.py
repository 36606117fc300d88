"""`python -m minillm.assets`: list, fetch and check the pinned data and weights."""

import argparse
import sys

from minillm.assets.cache import cache_dir, fetch, is_cached
from minillm.assets.errors import AssetError
from minillm.assets.registry import ASSETS, GROUPS, expand, info, names


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; 0 if every asset asked for is in the cache, 1 otherwise."""
    options = _parser().parse_args(arguments)
    wanted = names() if options.all else expand(options.names)
    if options.list or not wanted:
        print(_table())
        return 0
    return max(_one(name, check=options.check) for name in wanted)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m minillm.assets", description=__doc__)
    groups = ", ".join(GROUPS)
    parser.add_argument("names", nargs="*", help=f"assets or groups ({groups}) to fetch")
    parser.add_argument("--all", action="store_true", help="fetch every asset")
    parser.add_argument("--list", action="store_true", help="list the assets and stop")
    parser.add_argument("--check", action="store_true", help="also hash what the cache holds")
    return parser


def _one(name: str, *, check: bool) -> int:
    try:
        asset = info(name)
        had = is_cached(asset)
        path = fetch(name)
        if check and not is_cached(asset, thorough=True):
            raise AssetError(f"asset {name!r}: {path} was changed. Delete it, then fetch it again.")
    except AssetError as error:
        print(f"✘ {error}", file=sys.stderr)
        return 1
    print(f"✔ {name}: {path}" + (" (already there)" if had else ""), flush=True)
    return 0


def _table() -> str:
    rows = [("name", "size", "download", "here", "license", "what")]
    for name in names():
        asset = ASSETS[name]
        sizes = (f"{asset.size / 1e6:.1f} MB", f"{asset.download / 1e6:.1f} MB")
        rows.append((name, *sizes, "yes" if is_cached(asset) else "-", asset.license, asset.note))
    widths = [max(len(row[i]) for row in rows) for i in range(5)]
    lines = [
        "  ".join([*(c.ljust(w) for c, w in zip(row, widths, strict=False)), row[5]])
        for row in rows
    ]
    groups = [f"group {group}: {', '.join(members)}" for group, members in GROUPS.items()]
    return "\n".join([*lines, "", *groups, f"cache: {cache_dir()}"])


if __name__ == "__main__":
    sys.exit(main())
