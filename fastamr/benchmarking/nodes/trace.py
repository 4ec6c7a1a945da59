"""The operations of one update of the library's step on a GPU, listed with tensors that have no values."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch._library.custom_ops import OPDEFS
from torch._ops import OpOverload
from torch._subclasses.fake_tensor import FakeCopyMode, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from ...data import PackedSkeletons
from ...data.synthetic.dataset import synthetic_actions
from ...data.synthetic.random_clips import random_clips
from ...features.clip_batches import ClipBatches
from ...finetuning.fitting.classifier_step import Fit, FitSettings
from ...finetuning.fitting.recipe import FinetuneConfig
from ...models import ActionClassifier, build_model
from ...ops.common.planning import planned
from ...skeleton import get_layout
from ..step import FastStep
from .rules import NodeCount


class _Counting(TorchDispatchMode):
    """Counts what reaches the dispatcher; of the library's own ops it looks inside."""

    def __init__(self, count: NodeCount) -> None:
        super().__init__()
        self.count = count

    def __torch_dispatch__(
        self,
        function: OpOverload,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        given = kwargs or {}
        if function.namespace == "fastamr":
            with self:
                return OPDEFS[function._schema.name]._init_fn(*args, **given)
        result = function(*args, **given)
        self.count.add_operation(function, args, result)
        return result


class _CountingRecorder:
    """In the place of what records a CUDA graph: counts each update that is run before one would be recorded."""

    def __init__(self, architecture: int) -> None:
        self.count, self._architecture = NodeCount(), architecture

    def run(self, function: Callable[[], Any]) -> Any:
        """Count the update."""
        from ...kernels.launch import record

        self.count = NodeCount()
        with planned() as compiled, record(self._architecture) as launches, _Counting(self.count):
            result = function()
        for name in [*compiled, *(launch.kernel.__name__ for launch in launches)]:
            self.count.add_kernel(name)
        return result

    def record(self, function: Callable[[], Any]) -> Any:
        """Not reached: the updates before a recording are enough."""
        raise NotImplementedError

    def replay(self) -> None:
        """Not reached."""
        raise NotImplementedError

    def forget(self) -> None:
        """Nothing is held."""


# The first update makes what later ones find.
_UPDATES = 2
_LENGTHS = (60, 80)


def count_nodes(
    model: str = "amr",
    architecture: Mapping[str, Any] | None = None,
    *,
    sequences: int = 256,
    precision: str = "bfloat16",
    capability: int = 90,
) -> NodeCount:
    """Count the nodes of the CUDA graph that an update of ``fastamr pretrain`` becomes; needs no GPU.

    The step runs on a CPU with fake tensors, which have shapes and no values, while every op chooses its back end as on
    a GPU with all extensions; what the dispatcher and the launchers see is counted by the rules of :mod:`.rules`.
    ``FASTAMR_BACKEND`` and ``fastamr.backend`` choose as ever.

    Args:
        model: name of the model.
        architecture: its settings; the paper's by default.
        sequences: S.
        precision: ``float32``, ``tf32``, ``float16`` or ``bfloat16``.
        capability: compute capability that the launchers choose for: 80, 90, 100.

    Raises:
        ValueError: an unknown model or setting.
        NotImplementedError: an operation that no rule covers.
        RuntimeError: a part of the update would make the host wait.
        ImportError: Triton is missing.
    """
    recorder = _CountingRecorder(capability)
    real = build_model(model, dict(architecture or {})).train()
    config = real.config
    clips = random_clips(2, config.frames, config.joints, config.channels)
    data = PackedSkeletons.from_clips(list(clips[:, :, None].numpy()), layout=get_layout(config.layout))
    with planned(), FakeTensorMode(allow_non_fake_inputs=True) as mode, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Accessing the data pointer of FakeTensor")
        with FakeCopyMode(mode):
            built = copy.deepcopy(real)
        step = FastStep(built, data, sequences=sequences, precision=precision, recorder=recorder)
        for _ in range(_UPDATES):
            step()
    recorder.count.what = step.description
    return recorder.count


def count_classifier_nodes(
    model: str = "amr",
    architecture: Mapping[str, Any] | None = None,
    *,
    clips: int = 48,
    precision: str = "bfloat16",
    capability: int = 90,
) -> NodeCount:
    """As :func:`count_nodes`, of an update of ``fastamr finetune`` by its default recipe, on generated clips.

    Args:
        model: name of the model whose encoder is fine-tuned.
        architecture: its settings; the paper's by default.
        clips: of an update.
        precision: as in :func:`count_nodes`.
        capability: as in :func:`count_nodes`.

    Raises:
        ValueError, NotImplementedError, RuntimeError, ImportError: as :func:`count_nodes`.
    """
    recorder = _CountingRecorder(capability)
    recipe = FinetuneConfig(batch_size=clips)
    encoder = build_model(model, dict(architecture or {}))
    data = synthetic_actions(_UPDATES * clips, seed=0, frames=_LENGTHS)  # all in one epoch
    real = ActionClassifier(encoder, len(data.label_names), **recipe.head()).train()
    with planned(), FakeTensorMode(allow_non_fake_inputs=True) as mode, FakeCopyMode(mode):
        built = copy.deepcopy(real)
    with planned(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Accessing the data pointer of FakeTensor")
        # The order of the clips is found by their values, so it is made where tensors have some.
        batches, chosen = ClipBatches(data, encoder.frames), torch.arange(data.num_clips)
        settings = FitSettings(precision=precision, recorder=recorder)
        fit = Fit(built, batches, chosen, data.labels, recipe, 0, None, settings)
        with mode:
            for _ in range(_UPDATES):
                fit.step()
    recorder.count.what = f"fine-tuning {model}, {precision}, {clips} clips"
    return recorder.count
