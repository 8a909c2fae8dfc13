"""The style of the figures. It changes neither pyplot nor its backend nor your own style."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from jdl.core.errors import require_package

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
"""The palette of Okabe and Ito, which colour-blind readers can tell apart."""
GREY = "#888888"
"""The colour of baselines."""
_STYLE = {
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#666666",
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.prop_cycle": f"cycler('color', {list(COLOURS)})",
    "grid.color": "#e4e4e4",
    "legend.frameon": False,
    "legend.fontsize": 9,
    "lines.linewidth": 1.8,
    "figure.constrained_layout.use": True,
    "savefig.bbox": "tight",
    "savefig.pad_inches": 0.12,
}


@contextmanager
def style() -> Iterator[None]:
    """Apply the style inside a `with` block, or inside a function that it decorates."""
    install = '"jdl-jax[report]"'
    matplotlib = require_package("matplotlib.style", "matplotlib", "figures", install)
    with matplotlib.context(["default", _STYLE]):
        yield


def blank_figure(width: float, height: float) -> "Figure":
    """An empty figure; width and height in inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height))


def plain_text(value: Any) -> str:
    """Text with its dollar signs escaped: one would begin a formula."""
    return str(value).replace("$", r"\$")
