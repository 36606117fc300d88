"""One interactive figure that needs neither a kernel nor a network once it is made.

The frames for all settings are drawn beforehand and travel inside the output; sliders and menus
choose which one is seen. In a running kernel ipywidgets draw each setting afresh instead.
"""

import hashlib
import html
import itertools
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from numbers import Real

from matplotlib.figure import Figure

from minillm.viz.style import CSS_DPI, check_alt, close, img_tag, png

MAX_FRAMES = 80
MAX_BYTES = 1_500_000
_CHOOSE = (
    "const r=this.closest('.minillm-explore');let i=0;"
    "r.querySelectorAll('.minillm-choice').forEach(c=>{i=i*+c.dataset.n+ +c.value;"
    "const o=c.parentElement.querySelector('output');if(o){"
    "o.textContent=JSON.parse(c.dataset.labels)[c.value];"
    "c.setAttribute('aria-valuetext',o.textContent)}});"
    "r.querySelectorAll('.minillm-frame').forEach((f,k)=>{f.hidden=k!==i})"
)
_CSS = (
    "<style>.minillm-explore [hidden]{display:none!important}"
    ".minillm-explore label{display:inline-flex;flex-wrap:wrap;align-items:center;gap:.5em;"
    "margin:.2em 1.2em .5em 0;max-width:100%}"
    ".minillm-explore input[type=range]{width:14em;max-width:60vw;accent-color:#0072B2}"
    ".minillm-explore select{font:inherit;max-width:100%;padding:.15em .3em}"
    ".minillm-explore output{font-variant-numeric:tabular-nums;min-width:3em}</style>"
)


class Explorer:
    """What `explore` returns: live widgets where a kernel runs, a self-contained page elsewhere."""

    def __init__(
        self,
        fn: Callable,
        alt: str,
        choices: Mapping[str, Sequence],
        frames: Sequence[str],
        first: Mapping[str, int],
    ) -> None:
        self.fn, self.alt, self.choices, self.first = fn, alt, dict(choices), dict(first)
        self.html = page(alt, self.choices, frames, self.first)

    def _repr_mimebundle_(self, **_: object) -> dict[str, object]:
        bundle = {"text/plain": repr(self), "text/html": self.html}
        widget = None if "google.colab" in sys.modules else self._live()
        return bundle if widget is None else widget._repr_mimebundle_() | bundle

    def _live(self) -> object | None:
        return live(self.fn, self.alt, self.choices, self.first)

    def __repr__(self) -> str:
        names = ", ".join(self.choices)
        return f"[interactive figure over {names}: {self.alt}]"


def explore(
    fn: Callable[..., object],
    *,
    alt: str,
    start: Mapping[str, object] | None = None,
    **choices: Sequence[object],
) -> Explorer:
    """Return an interactive figure of `fn(**setting)` over one or two lists of `choices`.

    `fn` returns a matplotlib figure, an HTML string or an object with `_repr_html_`. Numbers get a
    slider, everything else a menu. Shown first: the values that `start` names, otherwise the first
    of each list. Example: `explore(draw, alt="Bars: how temperature reshapes a distribution",
    start={"temperature": 1}, temperature=[0.5, 1, 2])`.
    """
    check_alt(alt)
    values = {name: list(options) for name, options in choices.items()}
    if not 1 <= len(values) <= 2 or not all(values.values()):
        raise ValueError(
            f"explore() takes one or two non-empty lists of choices, not {list(values)}; "
            "fix the other arguments inside fn"
        )
    first = starting_places(values, start or {})
    settings = [dict(zip(values, s, strict=True)) for s in itertools.product(*values.values())]
    if len(settings) > MAX_FRAMES:
        raise ValueError(f"{len(settings)} frames are too many to store; use at most {MAX_FRAMES}")
    results = [fn(**setting) for setting in settings]
    for colors, scale in ((128, 2.0), (48, 1.5), (24, 1.0)):
        frames = [
            frame(result, f"{alt}; {describe(setting)}", colors=colors, scale=scale)
            for result, setting in zip(results, settings, strict=True)
        ]
        if sum(map(len, frames)) <= MAX_BYTES / 3:
            break
    size = sum(map(len, frames))
    if size > MAX_BYTES:
        raise ValueError(
            f"the frames take {size:,} bytes; at most {MAX_BYTES:,}: use fewer choices"
        )
    for result in results:
        if isinstance(result, Figure):
            close(result)
    return Explorer(fn, alt, values, frames, first)


def starting_places(choices: Mapping[str, Sequence], start: Mapping[str, object]) -> dict[str, int]:
    """Return the place in its list of each choice that is shown first; ValueError if not there."""
    for name, value in start.items():
        if name not in choices:
            raise ValueError(f"start names {name!r}; the choices are {', '.join(choices)}")
        if value not in list(choices[name]):
            raise ValueError(f"start has {name}={value!r}; choose from {list(choices[name])}")
    return {
        name: list(values).index(start[name]) if name in start else 0
        for name, values in choices.items()
    }


def frame(result: object, alt: str, *, colors: int = 256, scale: float = 2.0) -> str:
    """Return one frame as HTML: a figure becomes an image with `alt`, HTML stays as it is."""
    if isinstance(result, Figure):
        width = round(result.get_figwidth() * CSS_DPI)
        return img_tag(png(result, colors=colors, scale=scale), alt=alt, width=width)
    text = result._repr_html_() if hasattr(result, "_repr_html_") else result
    if not isinstance(text, str):
        raise TypeError(
            f"fn returned {type(result).__name__}; return a matplotlib Figure or an HTML string"
        )
    return text


def page(
    alt: str, choices: Mapping[str, Sequence], frames: Sequence[str], first: Mapping[str, int]
) -> str:
    """Return the self-contained HTML: one control a choice, all frames, that of `first` visible."""
    content = "\0".join([alt, repr(choices), repr(first), *frames])
    key = hashlib.sha256(content.encode()).hexdigest()[:12]
    controls = "".join(_control(name, values, first[name]) for name, values in choices.items())
    visible = 0
    for name, values in choices.items():
        visible = visible * len(values) + first[name]
    shown = "".join(
        f'<div class="minillm-frame"{"" if i == visible else " hidden"}>{one}</div>'
        for i, one in enumerate(frames)
    )
    title = html.escape(alt, quote=True)
    note = "<noscript>Without JavaScript only this setting is shown.</noscript>"
    return (
        f'{_CSS}<div class="minillm-explore" id="explore-{key}" role="group" '
        f'aria-label="{title}"><div>{controls}{note}</div>{shown}</div>'
    )


def _control(name: str, values: Sequence, first: int) -> str:
    """Return a labelled slider (numbers) or menu (anything else) over the places of `values`."""
    words = html.escape(name.replace("_", " "))
    labels = [label(value) for value in values]
    common = f'class="minillm-choice" data-n="{len(values)}" autocomplete="off"'
    if all(isinstance(v, Real) and not isinstance(v, bool) for v in values):
        said = html.escape(json.dumps(labels), quote=True)
        return (
            f'<label><span>{words}</span><input type="range" min="0" max="{len(values) - 1}" '
            f'step="1" value="{first}" {common} data-labels="{said}" '
            f'aria-valuetext="{html.escape(labels[first])}" oninput="{_CHOOSE}">'
            f"<output>{html.escape(labels[first])}</output></label>"
        )
    options = "".join(
        f'<option value="{i}"{" selected" if i == first else ""}>{html.escape(x)}</option>'
        for i, x in enumerate(labels)
    )
    menu = f'<select {common} onchange="{_CHOOSE}">{options}</select>'
    return f"<label><span>{words}</span>{menu}</label>"


def label(value: object) -> str:
    """Return a choice as readers see it: 0.5, 1, 10,000, causal."""
    if isinstance(value, Real) and not isinstance(value, bool):
        number = float(value)
        return f"{int(number):,}" if number == int(number) else f"{number:.3g}"
    return str(value)


def describe(setting: Mapping[str, object]) -> str:
    """Return a setting in words: `temperature 0.5, top k 10`."""
    return ", ".join(f"{name.replace('_', ' ')} {label(v)}" for name, v in setting.items())


def live(
    fn: Callable, alt: str, choices: Mapping[str, Sequence], first: Mapping[str, int] | None = None
) -> object | None:
    """Return ipywidgets that draw each setting by calling `fn`, or None where there are none."""
    try:
        import ipywidgets
        from IPython import get_ipython
    except ImportError:
        return None
    if get_ipython() is None:
        return None
    sliders = {
        name: ipywidgets.SelectionSlider(
            options=[(label(v), i) for i, v in enumerate(values)],
            value=(first or {}).get(name, 0),
            description=name.replace("_", " "),
            style={"description_width": "initial"},
        )
        for name, values in choices.items()
    }
    picture = ipywidgets.HTML()

    def draw(_: object = None) -> None:
        setting = {name: choices[name][slider.value] for name, slider in sliders.items()}
        result = fn(**setting)
        picture.value = frame(result, f"{alt}; {describe(setting)}")
        if isinstance(result, Figure):
            close(result)

    for slider in sliders.values():
        slider.observe(draw, names="value")
    draw()
    return ipywidgets.VBox([*sliders.values(), picture])
