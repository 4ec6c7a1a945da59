"""Training with labels: fine-tuned and linear classifiers, and small students that learn from them.

:mod:`.finetune` is the loop that all of them share; :mod:`.classifier` and :mod:`.distill` are the two commands.
"""

from .finetune import FinetuneConfig, FinetuneResult, finetune

__all__ = [
    "FinetuneConfig",
    "FinetuneResult",
    "finetune",
]
