"""A sixth method in one file: two random tenths of one clip should give the same feature (contrastive, no decoder).

python examples/new_method.py pretrain --model two_views --data synthetic --out runs/two_views --model.depth 3
python examples/new_method.py evaluate --checkpoint runs/two_views --data synthetic
"""

import sys
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from fastamr.cli import main
from fastamr.models import ModelConfig, PretrainOutput, SkeletonModel, register_model
from fastamr.models.parts.encoder import SkeletonEncoder
from fastamr.nn import describe_features, initialize


@dataclass(frozen=True)
class TwoViewsConfig(ModelConfig):
    """Options of TwoViews beside those of every model.

    Attributes:
        temperature: of the similarities.
        projector: width of the features that are compared.
    """

    temperature: float = 0.2
    projector: int = 128


@register_model
class TwoViews(SkeletonModel):
    """Which of the batch's clips is this? Seen twice through different masks (InfoNCE)."""

    name = "two_views"
    Config = TwoViewsConfig
    config: TwoViewsConfig
    reports_terms = True

    def __init__(self, layout: Any = "ntu25", frames: int = 120, **options: Any) -> None:
        super().__init__(layout, frames, **options)
        width, inner = self.config.width, self.config.projector
        self.encoder = SkeletonEncoder(self.config)
        self.projector = nn.Sequential(nn.Linear(width, inner), nn.GELU(), nn.Linear(inner, inner))
        self.apply(initialize)

    def reconstruct(self, clips: Tensor, keep: Tensor, valid: Tensor | None) -> PretrainOutput:
        """The loss of prepared clips, of which the tokens in keep are visible; a second choice is drawn here."""
        views = [self.encoder(clips, one).mean(1) for one in (keep, self.choose_visible(clips, valid=valid))]
        first, second = (functional.normalize(self.projector(view), dim=-1) for view in views)
        similar = first @ second.T / self.config.temperature
        same = torch.arange(len(clips), device=clips.device)
        loss = (functional.cross_entropy(similar, same) + functional.cross_entropy(similar.T, same)) / 2
        return PretrainOutput(loss, first, keep, None, describe_features("encoder", views[0].detach()))


if __name__ == "__main__":
    sys.exit(main())
