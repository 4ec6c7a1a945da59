"""Several processes that train one model, as torchrun starts them; all that crosses between them is torch.distributed.

:mod:`.world` knows who this process is and what all agree on; :mod:`.global_batch` makes sums over the whole batch.
"""

from .global_batch import add_up, draw_rows, processes, rows_of_batch, share_of, spread_over, total
from .world import LONG_PATIENCE, World

__all__ = [
    "LONG_PATIENCE",
    "World",
    "add_up",
    "draw_rows",
    "processes",
    "rows_of_batch",
    "share_of",
    "spread_over",
    "total",
]
