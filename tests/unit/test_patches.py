"""From patch grids to pixels and back."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from weedseg.data.augment import Cut, take_cut
from weedseg.pretraining import patches

sides = st.integers(1, 40)


@settings(deadline=None)
@given(height=sides, width=sides, patch_px=st.integers(1, 12), seed=st.integers(0, 99))
def test_pooling_enlarged_patches_gives_them_back(height, width, patch_px, seed):
    grid = patches.grid_size((height, width), patch_px)
    values = torch.from_numpy(np.random.default_rng(seed).random((2, *grid)))
    pixels = patches.to_pixels(values, patch_px, (height, width))
    assert pixels.shape == (2, 1, height, width)
    torch.testing.assert_close(patches.pool(pixels[:, 0], patch_px), values)


def test_every_pixel_belongs_to_the_patch_it_lies_in():
    grid = patches.grid_size((7, 10), 4)
    assert grid == (2, 3)
    numbers = torch.arange(6).reshape(1, *grid)
    pixels = patches.to_pixels(numbers, 4, (7, 10))[0, 0]
    for row in range(7):
        for column in range(10):
            assert pixels[row, column] == (row // 4) * 3 + column // 4


def test_a_cut_off_patch_averages_its_own_pixels():
    values = torch.arange(35, dtype=torch.float64).reshape(1, 5, 7)
    pooled = patches.pool(values, 3)[0]
    assert pooled.shape == (2, 3)
    assert pooled[1, 2] == values[0, 3:, 6:].mean()


def test_hiding_paints_hidden_patches_only():
    images = torch.rand(2, 3, 8, 12, generator=torch.Generator().manual_seed(0))
    before = images.clone()
    hidden = torch.zeros(2, 2, 3, dtype=torch.bool)
    hidden[0, 1, 2] = True
    fill = torch.tensor([0.1, 0.2, 0.3])
    masked = patches.hide(images, hidden, 4, fill)
    assert torch.equal(images, before)
    assert torch.equal(masked[1], images[1])
    assert torch.equal(masked[0, :, 4:, 8:], fill.view(3, 1, 1).expand(3, 4, 4))
    masked[0, :, 4:, 8:] = images[0, :, 4:, 8:]
    assert torch.equal(masked, images)


@pytest.mark.parametrize(("tile_px", "patch_px"), [(64, 16), (64, 12)])
@pytest.mark.parametrize("turns", range(4))
@pytest.mark.parametrize("flips", [(False, False), (True, False), (True, True)])
def test_centres_say_where_the_pixels_of_a_patch_came_from(tile_px, patch_px, turns, flips):
    """A photo whose pixels hold their own position: what a patch shows is where it lies."""
    rows, columns = np.mgrid[:128, :128].astype(np.uint8)
    photo = np.stack([rows, columns, rows], 2)
    cut = Cut(top=17, left=40, side=64, flip_h=flips[0], flip_v=flips[1], rot90=turns)
    tile = torch.from_numpy(take_cut(photo, cut, tile_px)).permute(2, 0, 1).double()
    found = patches.centres(cut, tile_px, patch_px)
    shown = patches.pool(tile[:2], patch_px).permute(1, 2, 0).numpy() + 0.5
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, shown, atol=1e-3)
