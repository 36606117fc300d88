"""Draw the cover figure, the logo and the favicon as SVG.

    python book/tools/draw_cover.py            from the weights stored in book/data/cover.json
    python book/tools/draw_cover.py --measure  after computing those weights with SmolLM2-135M

The cover shows one layer of attention of a real language model on one sentence: an arc from each
token back to each token that it attends to, a color for each head. Nothing in it is invented;
weights below 0.06 and those on the first token, where heads rest when they have nothing to find,
are left out.
"""

import argparse
import json
import math
from html import escape
from pathlib import Path

BOOK = Path(__file__).resolve().parents[1]
DATA = BOOK / "data" / "cover.json"
STATIC = BOOK / "_static"

SENTENCE = (
    "The cat sat on the mat because it was warm, and the dog lay beside it because it was tired."
)
LAYER = 13
HERO = 8
"""The head (counted from 0) drawn on top: here it mostly finds what "it" stands for."""

# Okabe and Ito's colors; the hero is orange, which stands out on light and on dark paper.
HEADS = ["#0072B2", "#56B4E9", "#009E73", "#CC79A7", "#0072B2", "#56B4E9", "#009E73", "#CC79A7"]
ORANGE = "#E69F00"
THEMES = {"light": ("#FCFCFA", "#22262B", "#C96F00"), "dark": ("#16191D", "#E8E6E1", "#F2B134")}

MARKED = {"it", "cat", "dog"}
FAINTEST = 0.06

WIDTH, BASE, FONT, ADVANCE, GAP = 1200, 312, 18, 10.84, 13.0


def measure() -> dict:
    """Return the pieces of the sentence and the attention weights of one layer's heads."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from minillm.assets import fetch, info

    path = fetch("smollm2-135m-instruct")
    where = {"pretrained_model_name_or_path": path.parent, "gguf_file": path.name}
    tokenizer = AutoTokenizer.from_pretrained(**where)
    model = AutoModelForCausalLM.from_pretrained(
        **where, attn_implementation="eager", dtype=torch.float32
    )
    tokens = tokenizer(SENTENCE, return_tensors="pt").input_ids
    with torch.no_grad():
        layer = model.eval()(tokens, output_attentions=True).attentions[LAYER][0]
    heads = [
        [[round(weight, 3) for weight in row[: i + 1]] for i, row in enumerate(head.tolist())]
        for head in layer
    ]
    return {
        "made by": "python book/tools/draw_cover.py --measure",
        "model": info("smollm2-135m-instruct").requirement,
        "layer": LAYER,
        "pieces": [tokenizer.decode([token]) for token in tokens[0]],
        "heads": heads,
    }


def cover(data: dict, theme: str) -> str:
    """Return the arc diagram of all heads as SVG."""
    paper, ink, accent = THEMES[theme]
    pieces = [piece.strip() for piece in data["pieces"]]
    centers = _centers(pieces)
    order = [h for h in range(len(data["heads"])) if h != HERO] + [HERO]
    arcs = [
        _arc(centers[key], centers[query], weight, *_pen(h, pieces[query], accent))
        for h in order
        for query, row in enumerate(data["heads"][h])
        for key, weight in enumerate(row)
        if 0 < key < query and weight >= FAINTEST
    ]
    words = [
        _word(piece, center, accent if piece in MARKED else ink)
        for piece, center in zip(pieces, centers, strict=True)
    ]
    title = f"Attention of layer {data['layer'] + 1} of a small language model on one sentence"
    return _svg(
        WIDTH, BASE + 52, title,
        f'<rect width="{WIDTH}" height="{BASE + 52}" rx="14" fill="{paper}"/>',
        '<g fill="none" stroke-linecap="round">', *arcs, "</g>",
        f'<g font-family="DejaVu Sans Mono, Menlo, Consolas, monospace" font-size="{FONT}" '
        'text-anchor="middle">', *words, "</g>",
    )  # fmt: skip


def _pen(head: int, query: str, accent: str) -> tuple[str, float, float]:
    """Color, strength and width of an arc: the hero's looks back from "it" stand out."""
    if head != HERO:
        return HEADS[head], 0.55, 5.0
    return (accent, 1.0, 11.0) if query == "it" else (accent, 0.4, 5.0)


def _centers(pieces: list[str]) -> list[float]:
    """The middle of each word when they stand on one line, in the middle of the drawing."""
    widths = [len(piece) * ADVANCE for piece in pieces]
    left = (WIDTH - sum(widths) - GAP * (len(pieces) - 1)) / 2
    starts = [left + sum(widths[:i]) + GAP * i for i in range(len(pieces))]
    return [start + width / 2 for start, width in zip(starts, widths, strict=True)]


def _word(piece: str, center: float, color: str) -> str:
    weight = ' font-weight="700"' if piece in MARKED else ""
    return f'<text x="{center:.1f}" y="{BASE + 24}" fill="{color}"{weight}>{escape(piece)}</text>'


def _arc(key: float, query: float, weight: float, color: str, strength: float, width: float) -> str:
    """A half ellipse from query back to key; weight is width and opacity."""
    rx = (query - key) / 2
    ry = min(rx, 26 * math.sqrt(rx / 4))
    return (
        f'<path d="M{query:.1f} {BASE}A{rx:.1f} {ry:.1f} 0 0 0 {key:.1f} {BASE}" stroke="{color}" '
        f'stroke-width="{1 + width * weight:.2f}" '
        f'stroke-opacity="{strength * (0.2 + 0.8 * weight**0.5):.2f}"/>'
    )


def mark(size: int) -> list[str]:
    """The mark: a causal attention map of four tokens, each one's look at itself in orange."""
    step, cell = size / 4, size / 4 * 0.82
    shades = ["#0072B2", "#2E92CC", "#56B4E9"]
    return [
        f'<rect x="{j * step + (step - cell) / 2:.2f}" y="{i * step + (step - cell) / 2:.2f}" '
        f'width="{cell:.2f}" height="{cell:.2f}" rx="{cell * 0.24:.2f}" '
        f'fill="{ORANGE if i == j else shades[(i - j - 1) % 3]}"/>'
        for i in range(4)
        for j in range(i + 1)
    ]


def logo() -> str:
    """Return the mark and the name, as outlines in a blue that is readable on light and dark."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.path import Path as Outline
    from matplotlib.textpath import TextPath

    letters = TextPath((0, 0), "minillm", 46, prop=FontProperties(family="DejaVu Sans"))
    names = {Outline.MOVETO: "M", Outline.LINETO: "L", Outline.CURVE3: "Q", Outline.CURVE4: "C"}
    steps = [
        names[code] + " ".join(f"{x + 80:.1f} {58 - y:.1f}" for x, y in points.reshape(-1, 2))
        if code != Outline.CLOSEPOLY
        else "Z"
        for points, code in letters.iter_segments(curves=True)
    ]
    width = round(letters.get_extents().x1 + 84)
    return _svg(width, 64, "minillm", *mark(64), f'<path d="{"".join(steps)}" fill="#2B84C0"/>')


def _svg(width: int, height: int, title: str, *parts: str) -> str:
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'width="{width}" height="{height}" role="img">'
    )
    return "\n".join([head, f"<title>{title}</title>", *parts, "</svg>"]) + "\n"


def main() -> None:
    """Write the drawings; with --measure first compute what the cover shows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--measure", action="store_true", help="run the model first")
    if parser.parse_args().measure:
        DATA.write_text(json.dumps(measure(), ensure_ascii=False) + "\n", encoding="utf-8")
    data = json.loads(DATA.read_text(encoding="utf-8"))
    drawings = {f"cover-{theme}.svg": cover(data, theme) for theme in THEMES}
    for name, text in (
        drawings | {"logo.svg": logo(), "favicon.svg": _svg(32, 32, "minillm", *mark(32))}
    ).items():
        (STATIC / name).write_text(text, encoding="utf-8")
        print(f"wrote book/_static/{name}")


if __name__ == "__main__":
    main()
