"""One training step in plain PyTorch: eager, compiled, or compiled and recorded in one CUDA graph."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..models import SkeletonModel
from ..training.update.precision import matmul_precision
from .plain import PlainModel

PRECISIONS = ("float32", "tf32", "float16", "bfloat16")
_GRAPH_WARMUP = 3


class PlainStep:
    """Forward, backward and ``torch.optim.AdamW`` on one batch of clips.

    Args:
        model: SkeletonMAE or AMR on its device; trained in place.
        clips: ``(S, T, V, C)`` float32 on the same device, the batch of every update.
        attention: see :class:`~fastamr.benchmarking.plain.PlainModel`.
        precision: ``float32``, ``tf32`` (float32 whose products may use TF32), or autocast to ``float16`` (with a
            gradient scaler) or ``bfloat16``.
        compiled: pass forward and loss through ``torch.compile``.
        fused: use AdamW's fused implementation, else its default.
        graph: record the whole update in a CUDA graph; the first call does.

    Attributes:
        is_graph: whether updates are replays of one CUDA graph.
        preparation: updates after the first until the step has its final form.
    """

    preparation = 0

    def __init__(
        self,
        model: SkeletonModel,
        clips: Tensor,
        *,
        attention: str,
        precision: str = "float32",
        compiled: bool = False,
        fused: bool = True,
        graph: bool = False,
    ) -> None:
        plain = PlainModel(model, attention)
        self._forward: Callable[[Tensor], tuple[Tensor, Tensor]] = (
            torch.compile(plain, dynamic=False) if compiled else plain
        )
        self.model, self.precision, self._clips = model, precision, clips
        self._optimizer = torch.optim.AdamW(
            model.parameter_groups(0.05), lr=1e-3, betas=(0.9, 0.95), fused=fused or None, capturable=graph
        )
        self._scaler = torch.amp.GradScaler(clips.device.type, enabled=precision == "float16")
        self._graph: torch.cuda.CUDAGraph | None = None
        self.is_graph = graph
        self._loss: Tensor = torch.zeros((), device=clips.device)
        self._keep = torch.zeros((), dtype=torch.int64, device=clips.device)

    def first_batch(self) -> tuple[Tensor, Tensor]:
        """Clips ``(S, T, V, C)`` and visible tokens ``(S, K)`` of the first update; ask before the second."""
        return self._clips, self._keep

    def __call__(self) -> Tensor:
        """Update once; return the loss before the update, a scalar on the device."""
        with matmul_precision("highest" if self.precision == "float32" else "high"):
            if self.is_graph and self._graph is None:
                self._record()
            if self._graph is not None:
                self._graph.replay()
            else:
                self._update()
        return self._loss

    def _update(self) -> None:
        self._optimizer.zero_grad(set_to_none=True)
        kind = {"float16": torch.float16, "bfloat16": torch.bfloat16}.get(self.precision)
        with torch.autocast(self._clips.device.type, dtype=kind, enabled=kind is not None):
            loss, self._keep = self._forward(self._clips)
        self._scaler.scale(loss).backward()
        self._scaler.step(self._optimizer)
        self._scaler.update()
        self._loss = loss.detach()

    def _record(self) -> None:
        """Record one update; the warm-up that recording needs leaves no trace in weights and moments."""
        before = [parameter.detach().clone() for parameter in self.model.parameters()]
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(_GRAPH_WARMUP):
                self._update()
        torch.cuda.current_stream().wait_stream(stream)
        self._optimizer.zero_grad(set_to_none=True)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self._update()
        with torch.no_grad():
            for parameter, old in zip(self.model.parameters(), before, strict=True):
                parameter.copy_(old)
            for state in self._optimizer.state.values():
                for value in state.values():
                    value.zero_()
        self._graph = graph
