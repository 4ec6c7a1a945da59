"""Where a model's files are found: a folder, the weights that come with the package, the Hugging Face Hub.

:mod:`.sources` decides which of the three a word means, :mod:`.registry` knows the package's own weights (a folder each
beside it, their hashes in ``registry.json``), :mod:`.hub` reads and fills repositories of the Hub, :mod:`.card` writes
model cards, :mod:`.folder` names the files of a model's folder. Nothing here builds a model.
"""

from __future__ import annotations

from .folder import BODY_SIZE, CARD_FILE, CONFIG_FILE, PREPROCESS, WEIGHTS_FILE
from .hub import Publishable
from .registry import Shipped, shipped
from .sources import find_model, own_folder, read_description

__all__ = [
    "BODY_SIZE",
    "CARD_FILE",
    "CONFIG_FILE",
    "PREPROCESS",
    "WEIGHTS_FILE",
    "Publishable",
    "Shipped",
    "find_model",
    "own_folder",
    "read_description",
    "shipped",
]
