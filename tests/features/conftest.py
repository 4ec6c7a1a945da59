"""The stand-in encoder and its clips, for this folder."""

from ..mean_encoder import encoder, make_data  # noqa: F401
