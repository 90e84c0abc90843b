"""SSIM and MS-SSIM on images in 0-1 (Wang et al. 2004; Wang, Simoncelli and Bovik 2003).

All moments of all scales are pooled by one separable Gaussian in channels-last memory, where a
depthwise convolution costs a third of the plain layout on CPUs. SSIM needs the sum of the two
variances only, hence four moments instead of five.

Shapes: N batch, H W tile px.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

WINDOW = 11
SIGMA = 1.5
C1, C2 = 0.01**2, 0.03**2
SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)


def _blur(values: Tensor, padding: int) -> Tensor:
    offsets = torch.arange(WINDOW, device=values.device, dtype=values.dtype) - WINDOW // 2
    kernel = torch.exp(-(offsets**2) / (2 * SIGMA**2))
    kernel = kernel / kernel.sum()
    channels = values.shape[1]
    down = kernel.view(1, 1, -1, 1).expand(channels, 1, -1, 1)
    across = kernel.view(1, 1, 1, -1).expand(channels, 1, 1, -1)
    if padding:
        values = functional.pad(values, (padding,) * 4, mode="reflect")
    return functional.conv2d(
        functional.conv2d(values, down, groups=channels), across, groups=channels
    )


def _terms(a: Tensor, b: Tensor, padding: int) -> tuple[Tensor, Tensor]:
    """Return the luminance and the contrast-structure term per pixel and channel."""
    moments = torch.cat([a, b, a * a + b * b, a * b], 1)
    mean_a, mean_b, squares, product = _blur(moments, padding).chunk(4, 1)
    cross = mean_a * mean_b
    means = mean_a * mean_a + mean_b * mean_b
    luminance = (2 * cross + C1) / (means + C1)
    structure = (2 * (product - cross) + C2) / (squares - means + C2)
    return luminance, structure


def ssim_map(a: Tensor, b: Tensor) -> Tensor:
    """Compute SSIM per pixel, averaged over channels: (N, 3, H, W) twice to (N, H, W)."""
    luminance, structure = _terms(a, b, WINDOW // 2)
    return (luminance * structure).mean(1)


def ms_ssim(a: Tensor, b: Tensor) -> Tensor:
    """Compute MS-SSIM per image, (N,), with as many of the five scales as the size allows."""
    a = a.contiguous(memory_format=torch.channels_last)
    b = b.contiguous(memory_format=torch.channels_last)
    num = max(s for s in range(1, 6) if min(a.shape[2:]) >> (s - 1) >= WINDOW)
    weights = torch.tensor(SCALE_WEIGHTS[:num], dtype=a.dtype)
    weights = weights / weights.sum()
    result = torch.ones(a.shape[0], dtype=a.dtype, device=a.device)
    for scale in range(num):
        luminance, structure = _terms(a, b, 0)
        term = luminance * structure if scale == num - 1 else structure
        result = result * term.mean((1, 2, 3)).clamp_min(1e-6) ** float(weights[scale])
        if scale < num - 1:
            a, b = functional.avg_pool2d(a, 2), functional.avg_pool2d(b, 2)
    return result
