"""The configuration of a distillation: the student, how it learns, and what is compared."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ..models import SkeletonModel, build_model
from .classifier import as_sources, check_computation, check_part
from .distill_loss import check_distillation
from .finetune import FinetuneConfig


@dataclass(frozen=True)
class StudentConfig:
    """The architecture of a student: the library's transformer encoder, small.

    The defaults (choice) have a tenth of the parameters of the paper-size encoder (8 blocks of width 256) and half its
    tokens.

    Attributes:
        width: D, encoder width; its heads divide it.
        depth: encoder blocks.
        heads: H, attention heads.
        mlp_ratio: inner width of the MLP over D.
        patch_frames: l, frames of a patch; null = twice the teacher's where that divides the frames of a clip.
    """

    width: int = 96
    depth: int = 3
    heads: int = 3
    mlp_ratio: float = 4.0
    patch_frames: int | None = None

    def build(self, teacher: SkeletonModel) -> SkeletonModel:
        """Return a fresh encoder for the clips of a teacher's encoder.

        Raises:
            ValueError: a width that the heads do not divide, or a patch that does not divide the frames.
        """
        own = teacher.config
        patch = self.patch_frames
        if patch is None:
            patch = own.patch_frames * (2 if own.frames % (2 * own.patch_frames) == 0 else 1)
        return build_model(
            "skeleton_mae",
            layout=own.layout,
            frames=own.frames,
            channels=own.channels,
            present=own.present,
            patch_frames=patch,
            width=self.width,
            depth=self.depth,
            heads=self.heads,
            mlp_ratio=self.mlp_ratio,
            # The decoder takes no part; it is as small as it can be.
            decoder_width=self.heads,
            decoder_depth=1,
            decoder_heads=self.heads,
        )


@dataclass(frozen=True)
class StudentRecipe(FinetuneConfig):
    """The recipe of a student, with and without its teacher: that of fine-tuning, for fresh weights (choice).

    Attributes:
        lr: highest learning rate (choice: 1e-3).
        layer_decay: learning rate of a layer over that of the next one; fresh weights learn alike.
        drop_path: of the last block, growing linearly from 0; a small model needs none.
        dropout: of the tokens.
        hidden: width of the head's hidden layer with BatchNorm, 0 = one linear layer.
        mixup: alpha of mix-up; the teacher sees whole clips, so it must be 0.
    """

    lr: float = 1e-3
    layer_decay: float = 1.0
    drop_path: float = 0.0
    dropout: float = 0.0
    hidden: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.mixup:
            raise ValueError(f"mixup={self.mixup} must be 0 in a distillation: the teacher sees whole clips")


@dataclass
class DistillConfig:
    """What ``fastamr distill`` does.

    Attributes:
        teacher: folder of a classifier, or of a pre-trained encoder, which stays frozen and gets a linear head; or a
            shipped model (``fastamr models``), or ``owner/name`` of the Hugging Face Hub.
        data: packed files of one layout, which are used together, or ``synthetic``.
        out: folder of the student and of the report.
        split: name of the split. Files without it are trained on whole, where another file has it.
        label_numbers: take the labels of files that do not name their classes for the numbers of those that do.
        unlabelled_data: packed files whose labels do not count: their clips teach by the teacher's answers alone. Of
            the teacher's layout; of any for a teacher of layout ``body``. Files with the split give its training half.
        unlabelled_rest: let the training clips of ``data`` that have no label, or lose it by ``label_share``, teach in
            the same way.
        unlabelled_share: what part of the clips of a batch these clips are; they stand beside the labelled ones of
            ``recipe.batch_size`` (choice: 0.5).
        label_share: share of the training labels that count, as many of each class; a teacher that is a classifier has
            learnt from labels of its own.
        label_seed: fixes which labels those are, for all seeds.
        seeds: a student is trained with the teacher and one without for each; the first one's student is kept.
        temperature: of the soft labels (choice: 2; teachers that learnt with label smoothing are flat enough).
        soft: weight of the teacher's soft labels against the true ones, 0 to 1 (choice: 0.5).
        feature: weight of feature matching; 0 = off (choice: 0.2).
        student: settings of :class:`StudentConfig` that differ from its defaults.
        recipe: settings of :class:`StudentRecipe` that differ from its defaults.
        batch_size: body sequences that a frozen teacher encodes at a time.
        device: ``auto`` (a GPU where there is one) or a torch device.
        deterministic: take only algorithms that give the same bits in every run on this machine with as many threads;
            on a GPU slower, see docs/reliability.md. On a CPU that holds without it too.
        precision: ``auto`` is bfloat16 autocast on GPUs that have it and float32 elsewhere; or ``float32``, ``tf32``,
            ``bfloat16``, ``float16``.
        graph: ``auto`` records an update as one CUDA graph on a GPU, and is eager elsewhere or where that fails;
            ``on`` stops where it fails; ``off`` is always eager.
        on_nan: ``stop`` ends the run where a loss is not finite; ``skip`` leaves the update out and goes on.
        checkpoint_every: epochs between two checkpoints of the student that trains; 0 for none on the way.
        track: who else gets the metrics: ``tensorboard``, ``mlflow``, ``wandb``, or ``MODULE:CLASS`` of one's own, see
            docs/pretraining.md.
        latency: measure latency on the CPU, batch 1 and 32.
        resume: continue the distillation that the folder holds: students that are done are not trained again, one that
            was cut short goes on from its checkpoint.
        overwrite: replace the distillation that the folder holds.
    """

    teacher: str
    data: list[str]
    out: str
    split: str = "official"
    label_numbers: bool = False
    unlabelled_data: list[str] = field(default_factory=list)
    unlabelled_rest: bool = False
    unlabelled_share: float = 0.5
    label_share: float = 1.0
    label_seed: int = 0
    seeds: list[int] = field(default_factory=lambda: [0])
    temperature: float = 2.0
    soft: float = 0.5
    feature: float = 0.2
    student: dict[str, Any] = field(default_factory=dict)
    recipe: dict[str, Any] = field(default_factory=dict)
    batch_size: int = 256
    device: str = "auto"
    deterministic: bool = False
    precision: str = "auto"
    graph: str = "auto"
    on_nan: str = "stop"
    checkpoint_every: float = 10.0
    track: list[str] = field(default_factory=list)
    latency: bool = True
    resume: bool = False
    overwrite: bool = False

    def __post_init__(self) -> None:
        self.teacher, self.out = str(self.teacher), str(self.out)
        self.data, self.unlabelled_data = as_sources(self.data), as_sources(self.unlabelled_data)
        self.seeds = list(self.seeds)
        if not self.seeds or any(seed < 0 for seed in self.seeds) or len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds={self.seeds} must hold at least one integer, none below 0, none twice")
        if not 0 < self.unlabelled_share < 1:
            raise ValueError(
                f"unlabelled_share={self.unlabelled_share} must be above 0 and below 1, for example 0.5"
            )
        if not 0 < self.label_share <= 1:
            raise ValueError(
                f"label_share={self.label_share} must be above 0 and at most 1, for example 0.1 for 10 %"
            )
        if self.label_seed < 0:
            raise ValueError(f"label_seed={self.label_seed} must be zero or more")
        if self.batch_size < 1:
            raise ValueError(f"batch_size={self.batch_size} must be at least 1 body sequence")
        check_computation(self)
        check_distillation(self.temperature, self.soft, self.feature)
        if self.soft == 0 and self.feature == 0:
            raise ValueError("soft=0 and feature=0 give the teacher no effect: set one above 0")
        check_part("student", self.student, StudentConfig)
        check_part("recipe", self.recipe, StudentRecipe)
        self.student_config()
        self.student_recipe()

    def student_config(self) -> StudentConfig:
        """Return the whole architecture of the student."""
        return StudentConfig(**self.student)

    def student_recipe(self) -> StudentRecipe:
        """Return the whole recipe."""
        return StudentRecipe(**self.recipe)
