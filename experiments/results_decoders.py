"""Two other decoders for AMR, which the ablations compare with its own."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fastamr.models import AMRModel, register_model
from fastamr.models.amr import AMRConfig, DecoupledDecoder
from fastamr.nn import TransformerBlock


def self_attention_blocks(config: AMRConfig) -> nn.ModuleList:
    """One self-attention block for each block of the decoder."""
    return nn.ModuleList(
        TransformerBlock(
            config.decoder_width, config.decoder_heads, mlp_ratio=config.mlp_ratio, backend=config.attention
        )
        for _ in range(config.decoder_depth)
    )


class JointDecoder(DecoupledDecoder):
    """Queries and visible tokens in one sequence, all attending to all: a self-attention decoder over few targets."""

    def make_blocks(self, config: AMRConfig) -> nn.ModuleList:
        """Build self-attention blocks in place of the cross-attention."""
        return self_attention_blocks(config)

    def forward(self, tokens: Tensor) -> Tensor:
        """Predict all target patches ``(S, Q, P)`` from the visible tokens ``(S, K, D)``."""
        queries = self.queries + (self.time_embed + self.joint_embed).flatten(0, 1)
        x = torch.cat([queries.expand(len(tokens), -1, -1), self.embed(tokens)], dim=1)
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x[:, : queries.shape[1]]))


class QueryAttentionDecoder(DecoupledDecoder):
    """AMR's decoder with self-attention among the queries before each cross-attention."""

    def __init__(self, config: AMRConfig) -> None:
        super().__init__(config)
        self.among = self_attention_blocks(config)

    def forward(self, tokens: Tensor) -> Tensor:
        """Predict all target patches ``(S, Q, P)`` from the visible tokens ``(S, K, D)``."""
        memory = self.embed(tokens)
        x = (self.queries + (self.time_embed + self.joint_embed).flatten(0, 1)).expand(len(tokens), -1, -1)
        for among, block in zip(self.among, self.blocks, strict=True):
            x = block(among(x), memory)
        return self.head(self.norm(x))


@register_model
class AMRJointDecoder(AMRModel):
    """AMR with :class:`JointDecoder`."""

    name = "amr_joint_decoder"
    decoder_class = JointDecoder


@register_model
class AMRQueryAttention(AMRModel):
    """AMR with :class:`QueryAttentionDecoder`."""

    name = "amr_query_attention"
    decoder_class = QueryAttentionDecoder
