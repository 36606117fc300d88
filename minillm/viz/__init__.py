"""Pictures and listings for the chapters: `show`, `figure`, `explore`, the style and the plots."""

from minillm.viz.explore import Explorer, explore
from minillm.viz.plots import attention_heads, attention_map, loss_curve, loss_curves, token_strip
from minillm.viz.show import Source, show
from minillm.viz.style import COLORS, HTML, figure, subplots, use

__all__ = [
    "COLORS",
    "HTML",
    "Explorer",
    "Source",
    "attention_heads",
    "attention_map",
    "explore",
    "figure",
    "loss_curve",
    "loss_curves",
    "show",
    "subplots",
    "token_strip",
    "use",
]
