"""Predict a whole photo with a torch network, over the same tiles as the deployed model."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import nn

from weedseg.imaging import ClassMap, Image
from weedseg.tiles import cut, plan_tiles, stitch


@torch.no_grad()
def predict_class_map(net: nn.Module, image: Image, tile_px: int, overlap_px: int) -> ClassMap:
    """Predict the classes of a photo.

    Args:
        net: Segmentation network; is put into evaluation mode.
        image: uint8 (H, W, 3) at working resolution.
        tile_px: Side of a tile, px, a multiple of 32.
        overlap_px: Smallest overlap of neighbours, px.

    Returns:
        Class ids, uint8 (H, W).
    """
    net.eval()
    device = next(net.parameters()).device
    plan = plan_tiles((image.shape[0], image.shape[1]), tile_px, overlap_px)

    def class_maps() -> Iterator[ClassMap]:
        for number in range(len(plan.placements)):
            tile = torch.from_numpy(np.ascontiguousarray(cut(plan, image, number)))
            batch = tile.permute(2, 0, 1)[None].to(device).float() / 255
            logits = net(batch.contiguous(memory_format=torch.channels_last))
            yield logits.argmax(1)[0].to(torch.uint8).cpu().numpy()

    return stitch(plan, class_maps())
