"""A small decoder of depthwise-separable convolutions, built from what an encoder promises."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional


def _separable(inputs: int, outputs: int) -> nn.Sequential:
    """Depthwise 3x3, pointwise 1x1; ReLU6 keeps int8 ranges small."""
    return nn.Sequential(
        nn.Conv2d(inputs, inputs, 3, padding=1, groups=inputs, bias=False),
        nn.BatchNorm2d(inputs),
        nn.Conv2d(inputs, outputs, 1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU6(inplace=True),
    )


class Decoder(nn.Module):
    """Merge the feature maps from the coarsest to stride 4: project, upsample, add, refine.

    Adding (as in a feature pyramid) costs half of what concatenating (as in a U-Net) costs at the
    fine levels, where nearly all of a decoder's time goes.
    """

    def __init__(self, channels: Sequence[int], strides: Sequence[int], width: int) -> None:
        """Build the decoder.

        Args:
            channels: Channels of the encoder's levels, finest first.
            strides: Strides of these levels.
            width: Channels of the output at stride 4.
        """
        super().__init__()
        self.first = list(strides).index(4)
        levels = list(channels[self.first :])
        self.width = width
        self.project = nn.ModuleList(
            nn.Sequential(nn.Conv2d(c, width, 1, bias=False), nn.BatchNorm2d(width)) for c in levels
        )
        self.refine = nn.ModuleList(_separable(width, width) for _ in levels)

    def forward(self, features: list[Tensor]) -> Tensor:
        """Decode to (N, width, H/4, W/4)."""
        levels = features[self.first :]
        last = len(levels) - 1
        merged: Tensor = self.refine[last](self.project[last](levels[last]))
        for level in range(last - 1, -1, -1):
            here: Tensor = self.project[level](levels[level])
            here = here + functional.interpolate(
                merged, scale_factor=2.0, mode="bilinear", align_corners=False
            )
            merged = self.refine[level](here)
        return merged
