"""The course's recurring pictures: attention maps, token strips and loss curves."""

import html
import math
from collections.abc import Iterable, Mapping, Sequence

import matplotlib
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from minillm.viz.style import COLORS, HTML, INK, rc, subplots

_CELL_LIMIT = 8


def attention_map(
    weights: Float[Tensor, "t s"],
    queries: Sequence[str] | None = None,
    keys: Sequence[str] | None = None,
    *,
    title: str | None = None,
) -> Figure:
    """Draw attention weights from 0 (paper) to 1 (dark): one row a query, one column a key.

    `queries` and `keys` are token labels; `keys` defaults to `queries` for a square map. Maps of
    at most 8 × 8 also print each weight.
    """
    _check_weights(weights, ("queries", "keys"))
    t, s = weights.shape
    keys = queries if keys is None and t == s else keys
    fig, ax = subplots(width=max(3.2, min(6.4, 1.6 + 0.45 * s)), height=max(2.6, 1.2 + 0.4 * t))
    with matplotlib.rc_context(rc()):
        image = _draw_map(ax, weights, queries, keys)
        ax.set(xlabel="key", ylabel="query")
        if title:
            ax.set_title(title)
        fig.colorbar(image, ax=ax, label="attention weight", shrink=0.9)
    return fig


def attention_heads(
    weights: Float[Tensor, "h t s"],
    queries: Sequence[str] | None = None,
    keys: Sequence[str] | None = None,
    *,
    titles: Sequence[str] | None = None,
    columns: int = 4,
) -> Figure:
    """Draw one small attention map a head, in a grid with one color scale from 0 to 1."""
    _check_weights(weights, ("heads", "queries", "keys"))
    if not isinstance(columns, int) or columns < 1:
        raise ValueError(f"columns is {columns!r:.60}; give how many maps stand side by side")
    h, t, s = weights.shape
    if titles is not None and len(titles) != h:
        raise ValueError(f"{len(titles)} titles for {h} heads; give one title a head")
    keys = queries if keys is None and t == s else keys
    columns = min(columns, h)
    rows = math.ceil(h / columns)
    fig, grid = subplots(rows, columns, width=1.7 * columns + 0.9, height=1.8 * rows, squeeze=False)
    with matplotlib.rc_context(rc() | {"font.size": 8, "axes.titlesize": 9}):
        for head, ax in enumerate(grid.flat):
            if head >= h:
                ax.axis("off")
                continue
            image = _draw_map(ax, weights[head], queries, keys, numbers=False)
            ax.set_title(titles[head] if titles is not None else f"head {head}")
        fig.supxlabel("key")
        fig.supylabel("query")
        fig.colorbar(image, ax=grid, label="attention weight", shrink=0.9)
    return fig


def _check_weights(weights: object, axes: tuple[str, ...]) -> None:
    """Raise ValueError unless `weights` is a tensor with these axes and something in it."""
    if not isinstance(weights, Tensor):
        raise ValueError(f"weights is {weights!r:.60}; write torch.as_tensor(weights)")
    if weights.ndim != len(axes) or not weights.numel():
        raise ValueError(
            f"weights have shape {tuple(weights.shape)}; give one number for each of "
            f"({', '.join(axes)}), such as weights[0]"
        )


def _draw_map(
    ax: Axes,
    weights: Float[Tensor, "t s"],
    queries: Sequence[str] | None,
    keys: Sequence[str] | None,
    *,
    numbers: bool = True,
) -> object:
    """Draw one map on `ax`; return the image for the color bar."""
    values = weights.detach().float().cpu().numpy()
    image = ax.imshow(values, cmap="Blues", vmin=0.0, vmax=1.0)
    ax.grid(False)
    ax.spines[:].set_visible(True)
    for axis, labels, size, name in (
        (ax.yaxis, queries, values.shape[0], "queries"),
        (ax.xaxis, keys, values.shape[1], "keys"),
    ):
        if labels is None:
            axis.set_major_locator(matplotlib.ticker.MaxNLocator(integer=True))
            continue
        if len(labels) != size:
            raise ValueError(f"{len(labels)} labels in {name} for an axis of {size}; give one each")
        if not all(isinstance(x, str) for x in labels):
            raise ValueError(f"{name} are {labels!r:.60}; give strings, such as str(x) of each")
        axis.set_ticks(range(size), labels=[visible(x) for x in labels], parse_math=False)
    if keys is not None:
        ax.tick_params(axis="x", rotation=90 if max(map(len, keys), default=0) > 3 else 0)
    if numbers and max(values.shape) <= _CELL_LIMIT:
        for (row, column), value in _cells(values):
            color = "white" if value > 0.5 else INK
            text = f"{value:.2f}" if value else "0"
            ax.text(column, row, text, ha="center", va="center", color=color, size=8)
    return image


def _cells(values: object) -> Iterable[tuple[tuple[int, int], float]]:
    """Yield ((row, column), value) of a matrix."""
    for row, line in enumerate(values):
        for column, value in enumerate(line):
            yield (row, column), float(value)


def visible(text: str) -> str:
    """Return `text` with spaces and line breaks made visible: `·`, `⏎`, `→`."""
    return text.replace(" ", "·").replace("\n", "⏎").replace("\t", "→")


_STRIP_CSS = """<style>
.minillm-tokens{font-family:ui-monospace,SFMono-Regular,Menlo,Consolas,"Noto Sans Mono CJK SC",
monospace;line-height:2.1;overflow-wrap:anywhere}
.minillm-tokens{white-space:pre-wrap}
.minillm-tokens .tok{display:inline-block;max-width:100%;line-height:1.6;
border-radius:3px;padding:.15em 0;margin-right:2px;
border-left:2px solid;border-bottom:2px solid;border-color:var(--c);background:var(--b)}
.minillm-tokens [data-see]{position:relative}
.minillm-tokens [data-see]::before{content:attr(data-see);position:absolute;left:0;opacity:.65}
.minillm-tokens .nl::before{position:static}
.minillm-tokens .byte{font-size:.8em;font-style:italic}
.minillm-tokens .id{font-size:.65em;opacity:.85;margin-left:.2em;user-select:none;
-webkit-user-select:none}
</style>"""


def token_strip(
    pieces: Sequence[bytes | str], ids: Sequence[int] | None = None, *, label: str | None = None
) -> HTML:
    """Return text with every token's boundary in color, spaces and line breaks visible.

    `pieces` are the tokens' bytes (or strings), as `Tokenizer.pieces(ids)` gives them; `ids` adds
    each token's number. A piece that is no whole character is shown as its bytes. Selecting and
    copying the strip gives the text itself, without marks or numbers.
    """
    if not isinstance(pieces, Sequence) or not all(isinstance(p, bytes | str) for p in pieces):
        raise ValueError(f"pieces is {pieces!r:.60}; give tokenizer.pieces(ids), then the ids")
    if ids is not None and len(ids) != len(pieces):
        raise ValueError(f"{len(ids)} ids for {len(pieces)} pieces; give one id a piece")
    names = ("blue", "orange", "green", "vermilion", "purple")
    spans = []
    for i, piece in enumerate(pieces):
        number = None if ids is None else ids[i]
        spans.append(_token(piece, number, COLORS[names[i % len(names)]], i))
    text = "|".join(_plain(piece) for piece in pieces)
    said = label or f"{len(pieces)} tokens: {text}"
    body = f'<div class="minillm-tokens" role="group" aria-label="{html.escape(said)}">'
    return HTML(f"{_STRIP_CSS}{body}{''.join(spans)}</div>", f"{len(pieces)} tokens: {text}")


def _token(piece: bytes | str, number: int | None, color: str, index: int) -> str:
    """Return one token's span: its characters, marks that are not copied, its number."""
    raw = piece.encode() if isinstance(piece, str) else piece
    breaks = ""
    try:
        text = raw.decode()
        body = text.rstrip("\n")
        breaks = text[len(body) :]
        mark = '<span class="nl" data-see="⏎"></span>'
        inner = "".join(_character(c) for c in body) + mark * len(breaks)
    except UnicodeDecodeError:
        inner = f'<span class="byte">{html.escape(_plain(raw))}</span>'
    title = f"token {index + 1}, {len(raw)} byte{'s' * (len(raw) != 1)}"
    tail = ""
    if number is not None:
        title += f", id {number}"
        tail = f'<span class="id">{number}</span>'
    style = f"--c:{color};--b:{color}2e"
    return f'<span class="tok" style="{style}" title="{title}">{inner}{tail}</span>{breaks}'


def _character(c: str) -> str:
    """Return one character as HTML; blanks carry a mark drawn by CSS, so a copy stays clean."""
    if c == "\n":
        return '<span class="nl" data-see="⏎">\n</span>'
    if c in " \t":
        return f'<span data-see="{visible(c)}">{c}</span>'
    if not c.isprintable():
        return f'<span class="byte" title="U+{ord(c):04X}">{html.escape(_plain(c.encode()))}</span>'
    return html.escape(c)


def _plain(piece: bytes | str) -> str:
    """Return a piece as plain text, half characters as `<E4><B8>`."""
    raw = piece.encode() if isinstance(piece, str) else piece
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        text = ""
    printable = text and all(c.isprintable() or c in "\n\t" for c in text)
    return visible(text) if printable else "".join(f"<{byte:02X}>" for byte in raw)


def loss_curve(
    records: Iterable[object], *, baselines: Mapping[str, int | float] | None = None
) -> Figure:
    """Draw the loss of one training run (records with `.step`, `.loss` and perhaps `.eval`).

    `baselines` adds dashed lines, such as `{"unigram entropy": 6.1}`, in the same unit (nats).
    """
    return loss_curves({"training": records}, baselines=baselines)


def loss_curves(
    runs: Mapping[str, Iterable[object]], *, baselines: Mapping[str, int | float] | None = None
) -> Figure:
    """Draw training runs by name: batch losses faint, running mean bold, `.eval` as dots."""
    fig, ax = subplots()
    with matplotlib.rc_context(rc()):
        for (name, records), color in zip(runs.items(), _cycle(), strict=False):
            rows = list(records)
            steps, losses = [r.step for r in rows], [r.loss for r in rows]
            ax.plot(steps, losses, color=color, alpha=0.25, linewidth=0.8)
            ax.plot(steps, running_mean(losses, max(1, len(rows) // 50)), color=color, label=name)
            dots = [(r.step, r.eval) for r in rows if getattr(r, "eval", None) is not None]
            if dots:
                held_out = "held out" if len(runs) == 1 else f"{name}, held out"
                ax.plot(*zip(*dots, strict=True), "o", color=color, markersize=5, mec=INK,
                        label=held_out)  # fmt: skip
        for i, (name, value) in enumerate((baselines or {}).items()):
            ax.axhline(
                value, color=INK, linestyle=("--", ":", "-.")[i % 3], linewidth=1.2, label=name
            )
        ax.set(xlabel="step", ylabel="loss (nats per token)")
        ax.legend()
    return fig


def _cycle() -> Iterable[str]:
    """Yield line colors in the style's order, again and again."""
    names = ("blue", "orange", "green", "vermilion", "purple", "sky")
    while True:
        yield from (COLORS[name] for name in names)


def running_mean(values: Sequence[float], window: int) -> list[float]:
    """Return the mean of the last `window` values up to each place (fewer at the start)."""
    out, total = [], 0.0
    for i, value in enumerate(values):
        total += value - (values[i - window] if i >= window else 0.0)
        out.append(total / min(i + 1, window))
    return out
