"""A mosaic is checked before the long work: each fault is one sentence with a remedy."""

import math

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from affine import Affine

from weedseg.edge.ood import OodReference, photo_statistics
from weedseg.errors import FieldDataError, GeoreferenceError
from weedseg.maps.georaster import choose_resolution, open_field, unlike_training

UTM = "EPSG:32632"
PLACE = Affine(0.002, 0, 600_000, 0, -0.002, 5_600_000)
FIELD = np.random.default_rng(0).integers(60, 200, (3, 90, 120), np.uint8)


def write(path, bands=FIELD, crs=UTM, transform=PLACE, **profile):
    names = profile.pop("names", None)
    profile = {
        "driver": "GTiff",
        "dtype": bands.dtype,
        "count": len(bands),
        "height": bands.shape[1],
        "width": bands.shape[2],
        "crs": crs,
        "transform": transform,
        **({"photometric": "RGB"} if len(bands) in (3, 4) and names is None else {}),
        **profile,
    }
    with rasterio.open(path, "w", **profile) as file:
        file.write(bands)
        if names:
            file.descriptions = names
    return path


def refused(path, kind=GeoreferenceError):
    with pytest.raises(kind) as caught:
        open_field(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_plain_mosaic_passes_without_a_word(tmp_path):
    field = open_field(write(tmp_path / "a.tif"))
    assert field.warnings == ()
    assert field.stretch == (1.0, 1.0)
    assert field.ground.size == (90, 120)
    assert field.ground.metric_crs == field.ground.crs
    assert field.ground.mm_per_px() == pytest.approx(2)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"crs": None}, "has no CRS"),
        ({"transform": Affine.identity()}, "no transform"),
        ({"transform": PLACE @ Affine.rotation(10)}, "turned, sheared or mirrored"),
        ({"transform": PLACE @ Affine.shear(3, 0)}, "turned, sheared or mirrored"),
        ({"transform": PLACE @ Affine.scale(1, -1)}, "turned, sheared or mirrored"),
        ({"bands": FIELD[:1]}, "no colours"),
        ({"bands": FIELD[[0, 1, 2]], "names": ("NIR", "red", "green")}, "is nir"),
        ({"bands": FIELD[[0, 1, 2]], "names": ("Blue", "Green", "Red")}, "-b 3 -b 2 -b 1"),
        ({"crs": "EPSG:4326", "transform": Affine(1, 0, 400, 0, -1, 50)}, "field on Earth"),
    ],
)
@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_faults_are_refused(changes, said, tmp_path):
    sentence = refused(write(tmp_path / "a.tif", **changes))
    assert said in sentence
    assert sentence.count("; ") >= 2


@pytest.mark.parametrize("driver", ["PNG", "VRT", "none"])
def test_other_files_are_refused(driver, tmp_path):
    path = tmp_path / "a.tif"
    if driver == "none":
        path.write_bytes(b"II*\0" + bytes(40))
    else:
        source = write(tmp_path / "source.tif")
        rasterio.shutil.copy(source, path, driver=driver)
    assert "GeoTIFF" in refused(path, FieldDataError)
    assert "no file" in refused(tmp_path / "missing.tif", FieldDataError)


@pytest.mark.parametrize(
    ("crs", "step", "metric"),
    [("EPSG:4326", 2e-8, "EPSG:32632"), ("EPSG:3857", 0.003, "EPSG:32632")],
)
def test_degrees_and_mercator_are_measured_in_the_utm_zone(crs, step, metric, tmp_path):
    corner = (9.5, 50.5) if crs == "EPSG:4326" else (1_057_535, 6_536_000)
    field = open_field(
        write(
            tmp_path / "a.tif", crs=crs, transform=Affine(step, 0, corner[0], 0, -step, corner[1])
        )
    )
    assert field.ground.metric_crs == metric
    assert metric in field.warnings[0]
    assert "UTM" in field.warnings[0]
    north = math.cos(math.radians(50.5))
    if crs == "EPSG:4326":
        down, across = field.stretch
        assert across / down == pytest.approx(north, rel=0.01)
        assert down * across == pytest.approx(1)
        assert "made square" in field.warnings[1]
    else:
        assert field.stretch == (1.0, 1.0)
        assert field.ground.mm_per_px() == pytest.approx(3 * north, rel=0.01)


def test_feet_are_no_metres(tmp_path):
    step = 0.002 / 0.3048
    place = Affine(step, 0, 2_000_000, 0, -step, 500_000)
    field = open_field(write(tmp_path / "a.tif", crs="EPSG:2264", transform=place))
    assert field.ground.metric_crs == "EPSG:32617"
    assert field.ground.mm_per_px() == pytest.approx(2, rel=2e-3)
    assert "foot" in field.warnings[0]


def test_odd_colours_are_announced(tmp_path):
    infrared = FIELD.copy()
    infrared[0, :, :60], infrared[1:, :, :60] = 220, 60
    infrared[:, :, 60:] = 120
    assert "near infrared" in open_field(write(tmp_path / "a.tif", infrared)).warnings[0]
    bluish = np.stack([FIELD[0] // 3, FIELD[0] // 2, FIELD[0]])
    assert "swapped" in open_field(write(tmp_path / "b.tif", bluish)).warnings[0]
    dark = FIELD.astype(np.uint16) * 16
    sentence = open_field(write(tmp_path / "c.tif", dark)).warnings[0]
    assert "very dark" in sentence
    assert "16 bits" in sentence
    five = np.concatenate([FIELD, FIELD[:2]])
    assert "bands 1, 2, 3" in open_field(write(tmp_path / "d.tif", five)).warnings[0]


def test_green_plants_on_red_soil_are_nothing_special(tmp_path):
    field = np.empty((3, 90, 120), np.uint8)
    field[:] = np.array([190, 90, 60], np.uint8)[:, None, None]
    field[:, :, :20] = np.array([60, 140, 50], np.uint8)[:, None, None]
    assert open_field(write(tmp_path / "a.tif", field)).warnings == ()


def test_ground_resolution_never_passes_silently(tmp_path):
    field = open_field(write(tmp_path / "a.tif"))

    def choose(training_mm, *, resample=False, as_is=False):
        return choose_resolution(field, training_mm, resample=resample, as_is=as_is)

    unknown = choose(None)
    assert unknown.factor == 1
    assert "--mm-per-px" in unknown.warnings[0]
    for within in ((1, 3), (2, 2), (2, 5)):
        assert (choose(within).factor, choose(within).warnings) == (1, ())
    for outside, factor in (((0.5, 1), 2.0), ((4, 5), 0.5)):
        with pytest.raises(GeoreferenceError, match=r"2 mm per px; expected .* --as-is"):
            choose(outside)
        assert choose(outside, resample=True).factor == pytest.approx(factor)
        assert "resized" in choose(outside, resample=True).warnings[0]
        assert choose(outside, as_is=True).factor == 1
        assert "may be wrong" in choose(outside, as_is=True).warnings[0]
    assert "cannot come back" in choose((0.5, 1), resample=True).warnings[0]
    assert "cannot come back" not in choose((4, 5), resample=True).warnings[0]


def test_places_unlike_the_photos_of_training_are_announced(tmp_path):
    field = write(
        tmp_path / "a.tif", np.random.default_rng(1).integers(0, 250, (3, 900, 1300), np.uint8)
    )
    with rasterio.open(field) as file:
        photo = np.ascontiguousarray(np.moveaxis(file.read(), 0, 2))
    alike = OodReference(mean=photo_statistics(photo), weights=np.eye(10) * 0.02)
    assert unlike_training(field, alike, (1.0, 1.0)) == []
    other = OodReference(mean=alike.mean + 40, weights=alike.weights)
    (sentence,) = unlike_training(field, other, (1.0, 1.0))
    assert sentence.startswith("16 of 16 places")
    empty = write(tmp_path / "b.tif", np.zeros((3, 50, 50), np.uint8), nodata=0)
    assert unlike_training(empty, other, (1.0, 1.0)) == []
