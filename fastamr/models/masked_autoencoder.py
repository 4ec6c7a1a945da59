"""The masked autoencoder with a decoder over all tokens, which SkeletonMAE and MAMP are."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from ..errors import naming
from ..nn import WeightedReconstructionLoss, initialize
from ..skeleton import SkeletonLayout
from .base import PretrainOutput, SkeletonModel
from .parts.config import ModelConfig
from .parts.encoder import SkeletonEncoder
from .parts.mask_tokens import FullDecoder
from .parts.presence import over_layout
from .released import read_released, released_config, released_weights


@dataclass(frozen=True)
class MaskedAutoencoderConfig(ModelConfig):
    """Options of a masked autoencoder: those of :class:`fastamr.models.ModelConfig`.

    Attributes:
        normalize: each patch by its own mean and unbiased variance (public code of MAMP).
    """

    normalize: str = "patch"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.visible >= self.typical_tokens:
            raise ValueError(
                f"mask_ratio={self.mask_ratio} hides none of {self.typical_tokens} tokens, so that nothing is left to "
                "reconstruct: raise it, for example to 0.9"
            )


class MaskedAutoencoder(SkeletonModel):
    """Reconstruct the masked patches with full self-attention over all tokens.

    ``attention="materialised"`` writes the attention matrices out as the public code does, ``attention="sdpa"`` is its
    strongest form. Only the visible tokens are embedded, which the public code does not spare itself.

    Args:
        layout: joints of the skeleton, by name or as a :class:`fastamr.SkeletonLayout`.
        frames: T, frames of a clip.
        options: any other field of the model's ``Config``.

    Attributes:
        released_module: folder of MAMP's public code that holds this model.
    """

    Config = MaskedAutoencoderConfig
    reports_sequences = True
    released_module: ClassVar[str]

    def __init__(self, layout: str | SkeletonLayout = "ntu25", frames: int = 120, **options: Any) -> None:
        super().__init__(layout, frames, **options)
        config = self.config
        self.encoder = SkeletonEncoder(config)
        self.decoder = FullDecoder(config)
        self.criterion = WeightedReconstructionLoss(
            config.patch_frames,
            target=config.target,
            stride=config.stride,
            normalize=config.normalize,
            eps=config.loss_eps,
        )
        self.apply(initialize)

    def reconstruct(self, clips: Tensor, keep: Tensor, valid: Tensor | None) -> PretrainOutput:
        """Predict all patches from the visible ones; the masked ones enter the loss."""
        encoded = self.encoder(clips, keep)
        clips, valid = self.present_part(clips, valid)
        prediction = self.decoder(encoded, keep, self.joints_of_each(valid))
        masked = torch.ones(prediction.shape[:2], dtype=torch.bool, device=clips.device)
        masked = masked.scatter(1, self.decoder.among_present(keep), False)
        loss, sequences = self.criterion.with_sequences(prediction, clips, token_mask=masked, valid=valid)
        return PretrainOutput(loss, prediction, keep, None, sequences=sequences)

    def over_layout(self, output: PretrainOutput) -> PretrainOutput:
        """Return the details with zeros for the joints that are no tokens."""
        if self.present is None:
            return output
        grid = output.prediction.unflatten(1, (-1, len(self.present)))
        prediction = over_layout(grid, self.present, self.config.joints, 2).flatten(1, 2)
        return output._replace(prediction=prediction)

    def linear_rows(self, name: str) -> int:
        """Rows of a linear layer per sequence: visible tokens in the encoder, all tokens in the decoder."""
        visible = name.startswith("encoder.") or name == "decoder.embed"
        return self.config.visible if visible else self.config.present_tokens

    @classmethod
    def from_released(cls, path: str | Path, **options: Any) -> Self:
        """Load a checkpoint of MAMP's public code, or of its MAE variant, without running code from the file.

        Sizes come from the weights; heads, masking ratio, temperature, stride and normalisation from the arguments that
        the file holds, where it does, else they keep the model's defaults. As many tokens stay visible as in the public
        code (74 of 750).

        Args:
            path: the ``.pth`` file, a state_dict or a dictionary with one under ``"model"``.
            options: replace what was found, as ``layout`` for a skeleton of other than 25 joints, or ``heads``.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: the file is not a checkpoint of that code, or of its other variant; the message names
                what is missing or unexpected.
        """
        checkpoint = read_released(path)
        written_by = str(checkpoint.arguments.get("model", cls.released_module))
        if not written_by.startswith(cls.released_module):
            raise ValueError(f"{path} was written by {written_by!r}, which is not a {cls.__name__}")
        with naming(path, "expected a checkpoint of MAMP's public code"):
            found = released_config(checkpoint, path)
            config = {**cls.Config().to_dict(), **found, **options}
            model = cls.from_config(cls.Config.from_dict(config))
        model.load_state_dict(released_weights(checkpoint.weights, model.state_dict(), path))
        return model
