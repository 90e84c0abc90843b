"""Importers on the real files: counts and class shares as in the README of the field data."""

import json

import numpy as np
import pytest

from weedseg.data.duplicates import duplicate_groups
from weedseg.data.exporters import export_farm
from weedseg.data.importers import collect
from weedseg.data.importers.items import ImportOptions
from weedseg.data.index import index_farm
from weedseg.data.look import full_check
from weedseg.data.masks import read_mask
from weedseg.data.nir import read_with_nir
from weedseg.data.writing import write_collection
from weedseg.imaging import image_size

pytestmark = pytest.mark.real_data

TABLE = {
    "peanut": (300, (720, 960), [0.84, 0.12, 0.04], 0.005),
    "cwfid": (60, (966, 1296), [0.926, 0.016, 0.058], 0.0005),
}
"""Photos, (H, W), shares of soil, crop and weed, and half of the last digit given."""


@pytest.mark.parametrize("kind", list(TABLE))
def test_counts_and_shares(kind, field_data, tmp_path):
    photos, size, shares, step = TABLE[kind]
    collection = collect(kind, field_data / kind, ImportOptions())
    manifest = write_collection(collection, tmp_path / "farm", kind)
    found = list(manifest["shares"].values())
    print(f"{kind}: {photos} photos, shares {found}, table {shares}")
    assert manifest["photos"] == manifest["labelled"] == photos
    np.testing.assert_allclose(found, shares, atol=step)
    farm = index_farm(tmp_path / "farm")
    assert {image_size(p.path) for p in farm.photos} == {size}
    faults, pixels = full_check(farm)
    assert [f.sentence for f in faults if f.severity == "error"] == []
    assert pixels.sum() == photos * size[0] * size[1]


def test_cwfid_reports_photo_28(field_data, tmp_path):
    collection = collect("cwfid", field_data / "cwfid", ImportOptions())
    manifest = write_collection(collection, tmp_path / "farm", "cwfid")
    assert "photo 28 is in both lists of the published split: test only" in manifest["notes"]
    assert (manifest["split"]["train"], manifest["split"]["test"]) == (39, 21)
    split = json.loads((tmp_path / "farm/split.json").read_text())
    assert "images/028_image.png" in split["test"]
    assert manifest["release_weights"] is False


def test_peanut_duplicates_are_grouped(field_data, tmp_path):
    collection = collect("peanut", field_data / "peanut", ImportOptions())
    write_collection(collection, tmp_path / "farm", "peanut")
    farm = index_farm(tmp_path / "farm")
    groups = {}
    for photo, group in zip(farm.photos, duplicate_groups(farm.photos).tolist()):
        groups.setdefault(group, set()).add(int(photo.path.stem))
    alike = [{28, 29}, {117, 118}, {173, 174}, {202, 203, 205}, {389, 391}]
    assert sorted((g for g in groups.values() if len(g) > 1), key=min) == alike


def test_sugarbeets_sample(field_data, tmp_path):
    source = field_data / "sugarbeets2016_sample"
    collection = collect("supervisely", source, ImportOptions(nir=True))
    manifest = write_collection(collection, tmp_path / "farm", "supervisely")
    print(f"sugarbeets2016_sample: {manifest['photos']} photos, shares {manifest['shares']}")
    assert manifest["photos"] == manifest["labelled"] == 8
    assert len(list((tmp_path / "farm/nir").iterdir())) == 8
    farm = index_farm(tmp_path / "farm")
    for photo in farm.photos:
        assert read_with_nir(farm, photo).shape == (966, 1296, 4)
    assert manifest["visits"] == 1
    assert manifest["shares"] == pytest.approx(
        {"background": 0.9992, "sugar beet": 0.0006, "weed": 0.0002}, abs=1e-4
    )


def test_real_masks_survive_all_label_tools(field_data, tmp_path):
    source = field_data / "sugarbeets2016_sample"
    collection = collect("supervisely", source, ImportOptions())
    write_collection(collection, tmp_path / "farm", "supervisely")
    farm = index_farm(tmp_path / "farm")
    for kind in ("coco", "cvat", "labelstudio", "png"):
        export_farm(farm, kind, tmp_path / f"{kind}-labels")
        back = collect(kind, tmp_path / f"{kind}-labels", ImportOptions(photos=farm.root))
        write_collection(back, tmp_path / kind, kind)
        again = index_farm(tmp_path / kind)
        assert again.fingerprint() == farm.fingerprint()
        for one, two in zip(farm.photos, again.photos):
            np.testing.assert_array_equal(read_mask(farm, one), read_mask(again, two))
