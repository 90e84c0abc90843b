"""SSIM and MS-SSIM against a slow implementation straight from the papers."""

import numpy as np
import pytest
import torch
from scipy import signal

from weedseg.pretraining.similarity import SCALE_WEIGHTS, ms_ssim, ssim_map

C1, C2 = 0.01**2, 0.03**2


def window():
    offsets = np.arange(11) - 5
    line = np.exp(-(offsets**2) / (2 * 1.5**2))
    square = np.outer(line, line)
    return square / square.sum()


def slow_terms(a, b):
    """Return luminance and contrast-structure of one channel, where the window fits."""

    def mean(values):
        return signal.convolve2d(values, window(), mode="valid")

    mean_a, mean_b = mean(a), mean(b)
    variance_a, variance_b = mean(a * a) - mean_a**2, mean(b * b) - mean_b**2
    covariance = mean(a * b) - mean_a * mean_b
    luminance = (2 * mean_a * mean_b + C1) / (mean_a**2 + mean_b**2 + C1)
    return luminance, (2 * covariance + C2) / (variance_a + variance_b + C2)


def slow_ssim_map(a, b):
    padded = [[np.pad(channel, 5, mode="reflect") for channel in image] for image in (a, b)]
    terms = [slow_terms(*channels) for channels in zip(*padded)]
    return np.mean([luminance * structure for luminance, structure in terms], axis=0)


def halved(image):
    _, height, width = image.shape
    whole = image[:, : height // 2 * 2, : width // 2 * 2]
    return (
        whole[:, ::2, ::2] + whole[:, 1::2, ::2] + whole[:, ::2, 1::2] + whole[:, 1::2, 1::2]
    ) / 4


def slow_ms_ssim(a, b, num):
    weights = np.array(SCALE_WEIGHTS[:num]) / sum(SCALE_WEIGHTS[:num])
    result = 1.0
    for scale, weight in enumerate(weights):
        terms = [slow_terms(*channels) for channels in zip(a, b)]
        last = scale == num - 1
        values = [luminance * structure if last else structure for luminance, structure in terms]
        result *= max(np.mean(values), 1e-6) ** weight
        a, b = halved(a), halved(b)
    return result


def pair(size, noise=0.1, seed=0):
    rng = np.random.default_rng(seed)
    a = rng.random((2, 3, *size))
    a = np.stack([[signal.convolve2d(c, window(), mode="same") for c in image] for image in a])
    return a, np.clip(a + rng.normal(0, noise, a.shape), 0, 1)


def test_the_map_is_that_of_the_paper():
    a, b = pair((25, 38))
    found = ssim_map(torch.from_numpy(a), torch.from_numpy(b)).numpy()
    wanted = np.stack([slow_ssim_map(*images) for images in zip(a, b)])
    assert found.shape == (2, 25, 38)
    np.testing.assert_allclose(found, wanted, atol=1e-10)


@pytest.mark.parametrize(
    ("size", "num"), [((11, 40), 1), ((64, 90), 3), ((96, 100), 4), ((176, 177), 5)]
)
def test_multi_scale_is_that_of_the_paper(size, num):
    a, b = pair(size)
    found = ms_ssim(torch.from_numpy(a), torch.from_numpy(b)).numpy()
    np.testing.assert_allclose(found, [slow_ms_ssim(*i, num) for i in zip(a, b)], atol=1e-9)


def test_single_precision_is_close():
    a, b = (torch.from_numpy(x) for x in pair((64, 64), seed=3))
    torch.testing.assert_close(
        ms_ssim(a.float(), b.float()).double(), ms_ssim(a, b), atol=1e-4, rtol=0
    )


def test_identical_images_are_wholly_similar():
    a = torch.from_numpy(pair((64, 64))[0]).float()
    torch.testing.assert_close(ms_ssim(a, a), torch.ones(2), atol=1e-4, rtol=0)
    torch.testing.assert_close(ssim_map(a, a), torch.ones(2, 64, 64), atol=1e-4, rtol=0)


def test_more_noise_is_less_similar():
    values = [
        float(ms_ssim(*(torch.from_numpy(x) for x in pair((64, 64), noise))).mean())
        for noise in (0.0, 0.02, 0.1, 0.5)
    ]
    assert values == sorted(values, reverse=True)
    assert values[0] > 0.999
    assert values[-1] < 0.7


@pytest.mark.parametrize("kind", ["same", "flat", "inverse", "noise"])
def test_gradients_are_finite(kind):
    target = torch.from_numpy(pair((64, 64))[0]).float()
    found = {
        "same": target.clone(),
        "flat": torch.full_like(target, 0.5),
        "inverse": 1 - target,
        "noise": torch.rand(target.shape, generator=torch.Generator().manual_seed(0)),
    }[kind].requires_grad_()
    (1 - ms_ssim(found, target)).mean().backward()
    assert torch.isfinite(found.grad).all()
    assert kind in ("same", "inverse") or found.grad.abs().max() > 0


def test_flat_images_have_finite_gradients():
    flat = torch.full((1, 3, 64, 64), 0.5, requires_grad=True)
    ms_ssim(flat, torch.full((1, 3, 64, 64), 0.5)).sum().backward()
    assert torch.isfinite(flat.grad).all()
