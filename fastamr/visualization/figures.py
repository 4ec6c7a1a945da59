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


def picture_format(path: str | Path, known: tuple[str, ...] = PICTURES) -> str:
    """Return the format that the ending of a file's name asks for.

    Raises:
        ValueError: another ending, with the known ones.
    """
    ending = Path(path).suffix.lower().lstrip(".")
    check_name(f"ending of {str(path)!r}", ending, known)
    return ending


def save_figure(figure: Figure, path: str | Path, *, dpi: int = 150) -> None:
    """Write a figure in one piece; the ending of the name chooses the format.

    Raises:
        ValueError: an unknown ending.
        FileNotFoundError: no folder to write into.
    """
    ending = picture_format(path)
    check_folder_of(path)
    with replaced(path) as temporary:
        figure.savefig(temporary, dpi=dpi, format=ending)


def colour_map(name: str) -> Any:
    """Return one of matplotlib's colour maps."""
    from matplotlib import colormaps

    return colormaps[name]
