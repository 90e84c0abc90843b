"""One look at a photo: what it tells, that it finds files cut short, that it is not repeated."""

import os
from collections import Counter

import numpy as np
import pytest
from PIL import Image as PillowImage

from weedseg.data import survey as looks
from weedseg.data.index import Photo, index_farm
from weedseg.data.look import full_check
from weedseg.data.splits import make_split
from weedseg.data.survey import on_all_cores, survey, survey_all
from weedseg.data.synthetic import write_farm
from weedseg.errors import ImageError
from weedseg.imaging import write_png


def photo_at(path):
    return Photo(name=path.name, path=path)


def soil(side, seed=0):
    coarse = np.random.default_rng(seed).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    return np.kron(coarse, np.ones((side // 16, side // 16, 1), np.uint8))


def test_what_a_look_tells(tmp_path):
    exif = PillowImage.Exif()
    exif[0x0112] = 6
    picture = PillowImage.fromarray(np.full((90, 160, 3), 100, np.uint8))
    picture.save(tmp_path / "grey.jpg", exif=exif)
    flat = survey(photo_at(tmp_path / "grey.jpg"))
    assert (flat.size, flat.turn, flat.error) == ((160, 90), 6, None)
    assert flat.grey == pytest.approx(100, abs=1)
    assert flat.sharpness < 1
    write_png(tmp_path / "sharp.png", soil(256))
    assert survey(photo_at(tmp_path / "sharp.png")).sharpness > 100


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("kept", [0.3, 0.9, 0.999])
def test_large_jpegs_that_were_cut_short_are_found_at_reduced_size(tmp_path, progressive, kept):
    path = tmp_path / "photo.jpg"
    PillowImage.fromarray(soil(2048)).save(path, quality=85, progressive=progressive)
    assert survey(photo_at(path)).error is None
    data = path.read_bytes()
    path.write_bytes(data[: int(kept * len(data))])
    seen = survey(photo_at(path))
    assert isinstance(seen.error, ImageError)
    assert str(path) in str(seen.error)
    assert seen.hash is None


def test_missing_and_changed_files(tmp_path):
    path = tmp_path / "photo.png"
    assert "cannot be read" in str(survey(photo_at(path)).error)
    write_png(path, soil(64, 1))
    first = survey(photo_at(path))
    write_png(path, soil(64, 2))
    os.utime(path, ns=(1, 1))
    assert survey(photo_at(path)).hash != first.hash


def test_check_and_split_decode_every_photo_once(tmp_path, monkeypatch):
    write_farm(tmp_path, 0, num_photos=24, num_labelled=20, size=(64, 64))
    decoded = Counter()
    read_small = looks.read_small

    def counted(path, side_px):
        decoded[path] += 1
        return read_small(path, side_px)

    monkeypatch.setattr(looks, "read_small", counted)
    farm = index_farm(tmp_path)
    full_check(farm)
    make_split(farm, 0)
    assert decoded == Counter(p.path for p in farm.photos)


def test_order_and_errors_of_work_on_all_cores(tmp_path):
    assert list(on_all_cores(lambda n: n * n, range(100))) == [n * n for n in range(100)]
    with pytest.raises(ZeroDivisionError):
        list(on_all_cores(lambda n: 1 // n, [1, 0]))
    assert survey_all([]) == []
