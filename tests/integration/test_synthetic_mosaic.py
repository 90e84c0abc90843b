"""The synthetic orthomosaic: georeferenced, exact labels, read back by the importer."""

import builtins
import sys

import numpy as np
import pytest
import rasterio

from weedseg.cli import main
from weedseg.data import synthetic_mosaic
from weedseg.data.index import index_farm
from weedseg.data.masks import read_mask
from weedseg.data.synthetic import draw_style
from weedseg.data.synthetic_mosaic import LABELS, ORTHO, OUTLINES, write_mosaic
from weedseg.errors import ConfigError, OutputError, RuntimeUnavailableError

SIZE = (320, 400)


def test_mosaic_and_labels_lie_on_the_same_ground(tmp_path):
    mm_per_px = write_mosaic(tmp_path, 1, SIZE)
    with rasterio.open(tmp_path / ORTHO) as ortho, rasterio.open(tmp_path / LABELS) as labels:
        assert ortho.crs == labels.crs == "EPSG:32632"
        assert ortho.transform == labels.transform
        assert ortho.res == (mm_per_px / 1000, mm_per_px / 1000)
        assert (ortho.height, ortho.width, ortho.count) == (*SIZE, 4)
        ids, alpha = labels.read(1), ortho.read(4)
        assert labels.nodata == 255
    assert set(np.unique(ids)) == {0, 1, 2, 255}
    np.testing.assert_array_equal(ids == 255, alpha == 0)
    assert 0 < (alpha == 0).mean() < 0.2
    assert mm_per_px == draw_style(1, 0, 1).mm_per_px
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([ORTHO, LABELS, OUTLINES])


def test_the_importer_reads_every_pixel_back(tmp_path, capsys):
    made, farm = tmp_path / "made", tmp_path / "farm"
    assert main(["synth", "--out", str(made), "--seed", "1", "--mosaic", "400x320"]) == 0
    assert "EPSG:32632" in capsys.readouterr().out
    flags = ["--out", str(farm), "--window", "128"]
    assert main(["data", "import", "geotiff", str(made / OUTLINES), *flags]) == 0
    with rasterio.open(made / LABELS) as labels:
        truth = labels.read(1)
    found = index_farm(farm)
    names = np.array(["background", "crop", "weed"])
    for photo in found.labelled:
        top, left = (int(text) for text in photo.path.stem.split("_")[-2:])
        mask = read_mask(found, photo)
        part = truth[top : top + mask.shape[0], left : left + mask.shape[1]]
        known = part != 255
        np.testing.assert_array_equal(mask == 255, ~known)
        own = np.array(found.classes.names)[mask[known]]
        np.testing.assert_array_equal(own, names[part[known]])
    assert len(found.labelled) >= 9


def test_same_seed_same_mosaic(tmp_path):
    for folder, seed in (("a", 2), ("b", 2), ("c", 3)):
        write_mosaic(tmp_path / folder, seed, SIZE)
    pixels = []
    for folder in "abc":
        with rasterio.open(tmp_path / folder / ORTHO) as ortho:
            pixels.append(ortho.read())
    np.testing.assert_array_equal(pixels[0], pixels[1])
    assert (pixels[0] != pixels[2]).any()


def test_what_cannot_be_drawn(tmp_path, capsys):
    for size in ((255, 400), (20_000, 20_000)):
        with pytest.raises(ConfigError, match="a mosaic of"):
            write_mosaic(tmp_path, 0, size)
    assert main(["synth", "--out", str(tmp_path / "x"), "--mosaic", "wide"]) == 2
    assert "WIDTHxHEIGHT" in capsys.readouterr().err
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        write_mosaic(tmp_path / "file", 0, SIZE)


def test_without_rasterio_a_sentence_says_what_to_install(tmp_path, monkeypatch):
    import_ = builtins.__import__

    def refuse(name, *rest):
        if name.partition(".")[0] == "rasterio":
            raise ImportError(name)
        return import_(name, *rest)

    monkeypatch.setattr(builtins, "__import__", refuse)
    monkeypatch.delitem(sys.modules, "rasterio")
    with pytest.raises(RuntimeUnavailableError, match=r"pip install 'weedseg\[maps\]'"):
        synthetic_mosaic.write_mosaic(tmp_path, 0, SIZE)
