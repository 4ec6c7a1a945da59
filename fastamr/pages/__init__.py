"""The pages that commands write: one base template with its style, which loads nothing from elsewhere, and the
one place where texts from files become HTML. ``parts`` says what a page is made of, ``render`` fills the template.
"""

from .parts import Cell, Chart, Key, Mark, Part, Table, Text
from .render import render_page

__all__ = ["Cell", "Chart", "Key", "Mark", "Part", "Table", "Text", "render_page"]
