"""A plain masked autoencoder in somebody else's style, with three drop-in modules of fastamr; runs on any device.

python examples/plain_mae.py --steps 100 --device cuda
"""

import argparse

import torch
from torch import Tensor, nn

from fastamr import ops
from fastamr.data import synthetic_actions
from fastamr.nn import MaskedPatchEmbed, MotionEntropyGuidance, WeightedReconstructionLoss


class PlainMAE(nn.Module):
    """An encoder over the visible tokens, a decoder over all, both of ``torch.nn``; everything else drops in."""

    def __init__(self, frames: int, joints: int, width: int = 64, ratio: float = 0.9) -> None:
        super().__init__()
        self.embed = MaskedPatchEmbed(frames, joints, width, patch_frames=4)
        self.guidance = MotionEntropyGuidance(windows=(4, 8, 12))
        self.loss = WeightedReconstructionLoss(target_frames=4, target="motion", normalize="sequence")
        self.tokens, self.visible = self.embed.tokens, round(self.embed.tokens * (1 - ratio))
        layer = nn.TransformerEncoderLayer(width, 4, 2 * width, dropout=0.0, batch_first=True)
        self.encoder, self.decoder = nn.TransformerEncoder(layer, 2), nn.TransformerEncoder(layer, 1)
        self.mask_token, self.head = nn.Parameter(torch.randn(self.tokens, width) / 50), nn.Linear(width, 12)

    def forward(self, clips: Tensor) -> Tensor:
        """The loss of clips ``(S, T, V, 3)``."""
        row, seed = torch.arange(len(clips), device=clips.device)[:, None], ops.make_seed(device=clips.device)
        keep = ops.select_visible(seed, len(clips), self.tokens, self.visible).long()
        encoded = self.encoder(self.embed(clips, keep))
        everything = self.mask_token.repeat(len(clips), 1, 1).index_put((row, keep), encoded)
        masked = torch.ones_like(everything[..., 0], dtype=torch.bool).scatter(1, keep, False)
        predicted, guidance = self.head(self.decoder(everything)), self.guidance(clips)
        return self.loss(predicted, clips, guidance=guidance, token_mask=masked)


def train(steps: int, device: str, frames: int = 60, batch: int = 16) -> list[float]:
    """Train on generated motion and return the loss of each step."""
    data, losses = synthetic_actions(128).to(device), []
    model = PlainMAE(frames, data.coords.shape[1]).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for step in range(steps):
        ids = torch.randint(data.num_bodies, (batch,), device=device)
        loss = model(ops.sample_clips(data.coords, data.offsets, ids, frames, ops.make_seed(device=device)))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        print(f"step {step}: loss {losses[-1]:.4f}")
    return losses


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    train(**vars(parser.parse_args()))
