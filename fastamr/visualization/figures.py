"""What all figures share: making one without a display, writing it in one piece, colours and line styles."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..documents import printable_lines
from ..errors import check_name
from ..files import check_folder_of, replaced

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MISSING = "pictures need matplotlib: pip install 'fastamr[viz]'"
PICTURES = ("png", "svg", "pdf")
# Inches of a column and of the text of CVPR's and IEEE's two-column templates.
WIDTHS = {"column": 3.25, "text": 6.875}

# Okabe and Ito's colours, which people with colour blindness can tell apart; the figures never rely on them alone.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000", "#8C8C00")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "*", "p", "h")
LINES = ("-", "--", ":", "-.")


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure, inches, that needs no display.

    Raises:
        ImportError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(MISSING) from error
    return Figure(figsize=(width, height), layout="constrained")


def figure_text(text: object) -> str:
    """Return a text from a file as matplotlib may draw it: no control characters, and no formula in ``$``."""
    return printable_lines(text).replace("$", r"\$")


def text_size(text: str, size: float) -> tuple[float, float]:
    """Return width and height of a text in points of the figures' font, inches.

    Raises:
        ImportError: matplotlib is not installed.
    """
    try:
        from matplotlib.font_manager import FontProperties
        from matplotlib.textpath import TextPath
    except ImportError as error:
        raise ImportError(MISSING) from error

    lines = text.split("\n")
    font = FontProperties(size=size)
    widths = [TextPath((0, 0), line, prop=font).get_extents().x1 for line in lines if line.strip()]
    return max(widths, default=0.0) / 72, len(lines) * 1.25 * size / 72


def picture_format(path: str | Path, known: tuple[str, ...] = PICTURES) -> str:
    """Return the format that the ending of a file's name asks for.

    Raises:
        ValueError: another ending, with the known ones.
    """
    ending = Path(path).suffix.lower().lstrip(".")
    check_name(f"ending of {str(path)!r}", ending, known)
    return ending


def width_inches(width: str | float) -> float:
    """Return the width of a picture for a paper.

    Args:
        width: ``column``, ``text``, or inches.

    Raises:
        ValueError: another name, or a width that holds no picture.
    """
    if width in WIDTHS:
        return WIDTHS[str(width)]
    try:
        inches = float(width)
    except ValueError:
        raise ValueError(
            f"width {width!r}: expected {', '.join(WIDTHS)} or inches, for example 3.3"
        ) from None
    if not 2 <= inches <= 30:
        raise ValueError(f"width {inches:g}: expected 2 to 30 inches")
    return inches


def save_figure(figure: Figure, path: str | Path, *, dpi: int = 150) -> None:
    """Write a figure in one piece; the ending of the name chooses the format.

    Fonts are embedded: in PDF as TrueType, as publishers ask for, and in SVG as outlines.

    Raises:
        ValueError: an unknown ending.
        FileNotFoundError: no folder to write into.
    """
    ending = picture_format(path)
    check_folder_of(path)
    from matplotlib import rc_context

    with replaced(path) as temporary, rc_context({"pdf.fonttype": 42, "svg.fonttype": "path"}):
        figure.savefig(temporary, dpi=dpi, format=ending)


def colour_map(name: str) -> Any:
    """Return one of matplotlib's colour maps."""
    from matplotlib import colormaps

    return colormaps[name]
