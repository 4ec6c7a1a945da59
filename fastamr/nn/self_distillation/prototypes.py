"""Prototypes that features are compared with, and the losses between a student's comparisons and its teacher's.

Everything but the products with the prototypes is float32 (float64 for float64 scores), also under autocast. Nothing
here depends on a value for its shape, so that a training step can be recorded. The plain forms are in
:mod:`fastamr.reference.self_distillation`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from ...ops.common.precision import exact


class Prototypes(nn.Linear):
    """Cosines of features with P learned directions: a linear layer without bias whose inputs and rows have length 1.

    Args:
        width: Z, of the features.
        count: P.
    """

    def __init__(self, width: int, count: int) -> None:
        super().__init__(width, count, bias=False)

    def forward(self, input: Tensor) -> Tensor:
        """``(R, Z)`` to ``(R, P)`` in -1 to 1."""
        return functional.linear(
            functional.normalize(input, dim=-1), functional.normalize(self.weight, dim=-1)
        )


class PrototypeHead(nn.Module):
    """Three linear layers with GELU between them, then prototypes (DINO, Caron et al. 2021, arXiv 2104.14294).

    Args:
        width: D, of the tokens.
        hidden: width of the inner layers.
        bottleneck: Z, of the features that the prototypes see.
        prototypes: P.
    """

    def __init__(self, width: int, hidden: int, bottleneck: int, prototypes: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Linear(width, hidden),
            nn.GELU(),
            nn.Linear(hidden, hidden),
            nn.GELU(),
            nn.Linear(hidden, bottleneck),
        )
        self.prototypes = Prototypes(bottleneck, prototypes)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """``(R, D)`` to the features ``(R, Z)`` and their cosines ``(R, P)``."""
        features = self.mlp(x)
        return features, self.prototypes(features)


def _widened(scores: Tensor) -> Tensor:
    return scores.to(torch.promote_types(torch.float32, scores.dtype))


def sinkhorn_targets(
    scores: Tensor, temperature: float, *, rounds: int = 3, counted: Tensor | None = None
) -> Tensor:
    """Share the rows out over the prototypes evenly (Sinkhorn-Knopp; SwAV, Caron et al. 2020, arXiv 2006.09882).

    ``exp(scores / temperature)`` is scaled by turns until each prototype has the same sum over the counted rows and
    each row the sum 1; the rows come last. Only the two scalings are updated, the matrix is written once.

    Args:
        scores: ``(R, P)``, of the teacher.
        temperature: positive; the smaller, the sharper.
        rounds: pairs of scalings (DINOv2 and SLiM: 3).
        counted: ``(R,)`` bool, the rows that count; the others come out as 0. None counts all.

    Returns:
        ``(R, P)`` float32 (float64 for float64 scores), without gradient.
    """
    with torch.no_grad(), exact(scores):
        scores = _widened(scores)
        matrix = ((scores - scores.amax()) / temperature).exp()
        tiny = torch.finfo(matrix.dtype).tiny
        weight = torch.ones_like(matrix[:, 0]) if counted is None else counted.to(matrix.dtype)
        rows, columns = weight, matrix.new_ones(matrix.shape[1])
        for _ in range(rounds):
            columns = 1 / (rows @ matrix).clamp(min=tiny)
            columns = columns / columns.amax()  # the rows' scaling takes any factor back
            rows = weight / (matrix @ columns).clamp(min=tiny)
        return matrix * columns * rows[:, None]


def soft_cross_entropy(scores: Tensor, targets: Tensor, temperature: float) -> Tensor:
    """Cross-entropy ``(R,)`` of ``softmax(scores / temperature)`` with targets that sum to 1.

    Args:
        scores: ``(R, P)``, of the student.
        targets: ``(R, P)``, without gradient.
        temperature: of the student.
    """
    with exact(scores):
        logits = _widened(scores) / temperature
        return logits.logsumexp(-1) - (logits * targets).sum(-1)


def class_loss(scores: Tensor, targets: Tensor, temperature: float) -> Tensor:
    """DINO's loss: every view of the student with every view of the teacher but itself, the mean over pairs and rows.

    Args:
        scores: ``(S, A, P)`` of the student's views; the first G are the teacher's.
        targets: ``(S, G, P)`` of the teacher, see :func:`sinkhorn_targets`; A is above 1.
        temperature: of the student.

    Returns:
        Scalar.
    """
    shared, pairs = targets.shape[1], scores.shape[1] * targets.shape[1] - targets.shape[1]
    with exact(scores):
        logits = _widened(scores) / temperature
        every = targets.sum(1, keepdim=True)
        scale = torch.logsumexp(logits, -1)
        total = scale[:, :shared].sum() * (shared - 1) + scale[:, shared:].sum() * shared
        total = total - (logits[:, :shared] * (every - targets)).sum() - (logits[:, shared:] * every).sum()
        return total / (pairs * scores.shape[0])


def patch_loss(scores: Tensor, targets: Tensor, temperature: float, counted: Tensor) -> Tensor:
    """iBOT's loss (Zhou et al. 2022, arXiv 2111.07832): the teacher's comparison of each hidden token.

    Args:
        scores: ``(R, P)`` of the student, one hidden token a row.
        targets: ``(R, P)`` of the teacher.
        temperature: of the student.
        counted: ``(R,)`` bool.

    Returns:
        Mean over the counted rows, 0 where there is none.
    """
    errors = soft_cross_entropy(scores, targets, temperature)
    return torch.where(counted, errors, 0).sum() / counted.sum().clamp(min=1)


def koleo_loss(features: Tensor, *, least: float = 1e-4) -> Tensor:
    """Mean of ``-log`` of the distance to the nearest other row, at length 1 (KoLeo; Sablayrolles et al. 2019).

    Args:
        features: ``(R, D)``, R at least 2.
        least: distances below count as this one and have no gradient (choice): of two equal rows, such as empty bodies,
            the gradient would be infinite.
    """
    with exact(features):
        rows = functional.normalize(_widened(features), dim=-1)
        with torch.no_grad():
            nearest = (rows @ rows.T).fill_diagonal_(-2).argmax(1)
        distances = torch.linalg.vector_norm(rows - rows[nearest], dim=-1)
        return -distances.clamp(min=least).log().mean()
