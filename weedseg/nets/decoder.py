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


def _projection(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs))


def _double(features: Tensor) -> Tensor:
    return functional.interpolate(features, scale_factor=2.0, mode="bilinear", align_corners=False)


class Decoder(nn.Module):
    """Merge the feature maps from the coarsest to stride 2: project, upsample, add, refine.

    Adding (as in a feature pyramid) costs half of what concatenating (as in a U-Net) costs at the
    fine levels, where nearly all of a decoder's time goes. The last level, at stride 2, is narrow:
    it is there for the outlines of seedlings of a few pixels.
    """

    def __init__(self, channels: Sequence[int], strides: Sequence[int], width: int) -> None:
        """Build the decoder.

        Args:
            channels: Channels of the encoder's levels, finest first.
            strides: Strides of these levels, 2 and 4 among them.
            width: Channels at stride 4 and coarser; at stride 2 three eighths of them.
        """
        super().__init__()
        self.first = list(strides).index(4)
        levels = list(channels[self.first :])
        self.project = nn.ModuleList(_projection(c, width) for c in levels)
        self.refine = nn.ModuleList(_separable(width, width) for _ in levels)
        self.width = max(8, width * 3 // 8)
        """Channels of the output."""
        self.fine = list(strides).index(2)
        self.narrow = _projection(width, self.width)
        self.project_fine = _projection(channels[self.fine], self.width)
        self.refine_fine = _separable(self.width, self.width)

    def forward(self, features: list[Tensor]) -> Tensor:
        """Decode to (N, `width`, H/2, W/2)."""
        levels = features[self.first :]
        last = len(levels) - 1
        merged: Tensor = self.refine[last](self.project[last](levels[last]))
        for level in range(last - 1, -1, -1):
            merged = self.refine[level](self.project[level](levels[level]) + _double(merged))
        fine = self.project_fine(features[self.fine]) + _double(self.narrow(merged))
        found: Tensor = self.refine_fine(fine)
        return found
