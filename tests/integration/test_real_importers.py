"""The real data sets, read where they lie."""

import numpy as np
import pytest

from weedseg.data.check import check_farm
from weedseg.data.duplicates import duplicate_groups
from weedseg.data.importers.cwfid import cwfid_farm
from weedseg.data.importers.peanut import peanut_farm
from weedseg.data.masks import read_mask
from weedseg.data.splits import make_split
from weedseg.errors import FieldDataError
from weedseg.imaging import read_image

pytestmark = pytest.mark.real_data


def shares(farm):
    counts = sum(np.bincount(read_mask(farm, p).ravel(), minlength=3) for p in farm.labelled)
    return counts / counts.sum()


def test_cwfid(field_data):
    farm, test, dropped = cwfid_farm(field_data / "cwfid")
    assert (len(farm.photos), len(farm.labelled), len(test)) == (60, 60, 21)
    assert dropped == ("images/028_image.png",)
    assert dropped[0] in test
    assert any("28" in note for note in farm.notes)
    assert read_image(farm.photos[0].path).shape == (966, 1296, 3)
    np.testing.assert_allclose(shares(farm), [0.926, 0.016, 0.058], atol=0.002)
    split = make_split(farm, 0, 10, fixed_test=test)
    assert {p.name for p in split.test} == set(test)
    assert (len(split.train), len(split.val), len(split.unlabelled)) == (8, 2, 39)
    assert split.within_field


def test_peanut(field_data):
    farm = peanut_farm(field_data / "peanut")
    assert len(farm.labelled) == len(farm.photos) == 300
    np.testing.assert_allclose(shares(farm), [0.84, 0.12, 0.04], atol=0.006)
    groups = duplicate_groups(farm.photos)
    by_group = {}
    for photo, group in zip(farm.photos, groups.tolist()):
        by_group.setdefault(group, []).append(int(photo.path.stem))
    assert sorted(g for g in by_group.values() if len(g) > 1) == [
        [28, 29],
        [117, 118],
        [173, 174],
        [202, 203, 205],
        [389, 391],
    ]
    group_of = {p.name: g for p, g in zip(farm.photos, groups.tolist())}
    split = make_split(farm, 0, 10)
    assert len(split.test) == 60
    assert (len(split.train), len(split.val)) == (8, 2)
    tested = {group_of[p.name] for p in split.test}
    assert not tested & {group_of[p.name] for p in split.unlabelled}


def test_peanut_is_sound(field_data):
    assert check_farm(peanut_farm(field_data / "peanut")) == []


def test_incomplete_downloads(field_data, tmp_path):
    with pytest.raises(FieldDataError, match="published split"):
        cwfid_farm(tmp_path)
    text = (field_data / "cwfid" / "train_test_split.yaml").read_text()
    (tmp_path / "train_test_split.yaml").write_text(text)
    with pytest.raises(FieldDataError, match=r"001_image\.png is missing"):
        cwfid_farm(tmp_path)
    (tmp_path / "train_test_split.yaml").write_text("train: [1]")
    with pytest.raises(FieldDataError, match="without the lists"):
        cwfid_farm(tmp_path)
    (tmp_path / "images").mkdir()
    source = field_data / "peanut" / "images" / "0002.jpg"
    (tmp_path / "images" / "0002.jpg").write_bytes(source.read_bytes())
    with pytest.raises(FieldDataError, match="1 photos without mask"):
        peanut_farm(tmp_path)
