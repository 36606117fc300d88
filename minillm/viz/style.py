"""One look for every figure: colors that color-blind readers tell apart, PNGs with alt text.

Colors are those of Okabe and Ito (2008), "Color Universal Design".
"""

import base64
import html
import io
import warnings
from dataclasses import dataclass

import matplotlib
from matplotlib import font_manager
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

COLORS: dict[str, str] = {
    "blue": "#0072B2",
    "orange": "#E69F00",
    "green": "#009E73",
    "vermilion": "#D55E00",
    "purple": "#CC79A7",
    "sky": "#56B4E9",
    "yellow": "#F0E442",
    "black": "#000000",
}
PAPER = "#FCFCFA"
INK = "#22262B"
NIGHT = "#16191D"
CHALK = "#E8E6E1"
CSS_DPI = 100
"""Figures are this many CSS pixels an inch wide, and are rendered at twice that."""

_CJK = ("Noto Sans CJK SC", "Noto Sans CJK JP", "Source Han Sans SC", "WenQuanYi Micro Hei")
_CJK += ("WenQuanYi Zen Hei", "PingFang SC", "Hiragino Sans GB", "Microsoft YaHei", "SimHei")


def rc(*, dark: bool = False) -> dict[str, object]:
    """Return the style as matplotlib settings, for `matplotlib.rc_context(rc())`."""
    paper, ink = (NIGHT, CHALK) if dark else (PAPER, INK)
    names = ("sky", "orange", "green", "vermilion", "purple", "yellow", "blue")
    if not dark:
        names = ("blue", "orange", "green", "vermilion", "purple", "sky")
    lines = dict.fromkeys(("axes.edgecolor", "xtick.color", "ytick.color", "text.color"), ink)
    return lines | {
        "font.family": ["DejaVu Sans", *_installed(_CJK)],
        "font.size": 10,
        "axes.labelcolor": ink,
        "axes.titlesize": 11,
        "axes.facecolor": paper,
        "figure.facecolor": paper,
        "savefig.facecolor": paper,
        "figure.figsize": (6.4, 3.6),
        "figure.dpi": CSS_DPI,
        "figure.constrained_layout.use": True,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.color": ink,
        "grid.alpha": 0.15,
        "lines.linewidth": 1.8,
        "legend.frameon": False,
        "image.cmap": "cividis" if dark else "Blues",
        "axes.prop_cycle": matplotlib.cycler(color=[COLORS[name] for name in names]),
    }


def use(*, dark: bool = False) -> None:
    """Set the style for every figure made afterwards, in its light or its dark variant."""
    matplotlib.rcParams.update(rc(dark=dark))


def subplots(
    rows: int = 1,
    cols: int = 1,
    *,
    width: int | float = 6.4,
    height: int | float = 3.6,
    **options: object,
) -> tuple[Figure, object]:
    """Return a styled figure of `width` × `height` inches and its axes, like `plt.subplots`.

    The figure is not registered with pyplot: nothing to close, and nothing shown twice.
    """
    with matplotlib.rc_context(rc()):
        fig = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasAgg(fig)
        return fig, fig.subplots(rows, cols, **options)


@dataclass(frozen=True)
class HTML:
    """A piece of HTML that a notebook shows as it is, with `text` for where HTML is not shown."""

    html: str
    text: str

    def _repr_html_(self) -> str:
        return self.html

    def __repr__(self) -> str:
        return self.text


def figure(fig: Figure, *, alt: str) -> HTML:
    """Return `fig` as an HTML image with alternative text, and close it.

    `alt` says in words what a reader who cannot see the picture should learn from it.
    The picture has an opaque light background, so it also reads on a dark page.
    """
    check_alt(alt)
    if not isinstance(fig, Figure):
        raise ValueError(f"fig is {fig!r:.60}; give the figure, which is `ax.figure` of its axes")
    width = round(fig.get_figwidth() * CSS_DPI)
    image = img_tag(png(fig), alt=alt, width=width)
    close(fig)
    return HTML(image, f"[figure: {alt}]")


def check_alt(alt: str) -> None:
    """Raise `ValueError` unless `alt` says something about a picture."""
    if not isinstance(alt, str) or len(alt.strip()) < 20 or len(alt.split()) < 4:
        raise ValueError(
            f"alt={alt!r} says too little; name the axes and what the picture shows, for example "
            "'Line plot: loss falls from 4.2 to 1.6 nats per token in 3,000 steps'"
        )


def png(fig: Figure, *, colors: int = 256, scale: float = 2.0) -> bytes:
    """Return `fig` as an opaque palette PNG; equal figures give equal bytes (no date in them)."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():  # a font without some glyph draws a box: not worth a warning
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        fig.savefig(buffer, format="png", dpi=CSS_DPI * scale, facecolor=_paper(fig))
    image = Image.open(buffer).convert("RGB")
    image = image.quantize(colors, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    out = io.BytesIO()
    image.save(out, format="png", optimize=True)
    return out.getvalue()


def img_tag(data: bytes, *, alt: str, width: int) -> str:
    """Return an `<img>` that carries its PNG data, at most `width` CSS pixels wide."""
    text = html.escape(alt, quote=True)
    style = "max-width:100%;height:auto;border-radius:4px"
    source = base64.b64encode(data).decode("ascii")
    return (
        f'<img class="minillm-figure dark-light" alt="{text}" width="{width}" style="{style}" '
        f'src="data:image/png;base64,{source}">'
    )


def close(fig: Figure) -> None:
    """Forget `fig` if pyplot made it, so that a notebook does not show it a second time."""
    from matplotlib import pyplot

    pyplot.close(fig)


def _paper(fig: Figure) -> tuple[float, ...]:
    """Return the figure's own background, or the paper color where that is transparent or white."""
    color = fig.get_facecolor()
    plain = color[3] < 1 or tuple(color[:3]) == (1.0, 1.0, 1.0)
    return matplotlib.colors.to_rgba(PAPER) if plain else tuple(color)


def _installed(families: tuple[str, ...]) -> list[str]:
    """Return those of `families` that matplotlib can find here, so that none is warned about."""
    known = set(font_manager.fontManager.get_font_names())
    return [family for family in families if family in known]
