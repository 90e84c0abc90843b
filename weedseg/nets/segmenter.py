"""The whole network: encoder, decoder and a head at stride 2.

Shapes: N batch, C outputs, H W tile px (multiples of 32).
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from weedseg.config import NetConfig
from weedseg.nets.decoder import Decoder
from weedseg.nets.encoders import Encoder


class SegmentationNet(nn.Module):
    """Images (N, 3, H, W) in 0-1 to (N, C, H, W): logits of classes, or colours in pretraining."""

    def __init__(self, encoder: Encoder, decoder: Decoder, num_outputs: int) -> None:
        """Join the parts and add a new head."""
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder
        self.head = nn.Conv2d(decoder.width, num_outputs, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Compute the outputs at the size of the images; H and W are multiples of 32."""
        coarse = self.head(self.decoder(self.encoder(images)))
        return functional.interpolate(
            coarse, scale_factor=2.0, mode="bilinear", align_corners=False
        )


def build_net(config: NetConfig, num_outputs: int) -> SegmentationNet:
    """Build a network with random weights (seeded by torch's global generator)."""
    encoder = Encoder(config.encoder)
    decoder = Decoder(encoder.channels, encoder.strides, config.decoder_channels)
    return SegmentationNet(encoder, decoder, num_outputs)
