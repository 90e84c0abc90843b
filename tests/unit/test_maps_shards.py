"""Shards: cores cover the mosaic once, parts are pure functions, damage is noticed."""

import dataclasses

import numpy as np
import pytest
from colour_field import pixels_of, random_squares, write_field
from colour_model import make_colour_model
from hypothesis import given, settings
from hypothesis import strategies as st

from weedseg.classes import DEFAULT_CLASSES
from weedseg.data.mosaics import Mosaic
from weedseg.edge.metadata import ModelMetadata
from weedseg.edge.segmenter import Segmenter
from weedseg.errors import FieldDataError, ModelFileError, OutputError
from weedseg.maps.ground import NO_DATA
from weedseg.maps.parts import FOLDER, PartFolder, map_state
from weedseg.maps.shards import is_whole, plan_shards, read_part, segment_shard

METADATA = ModelMetadata(
    classes=DEFAULT_CLASSES, tile_px=64, overlap_px=16, scale=1.0, temperature=1.0
)


def whole_map(mosaic, plan, segmenter, numbers=None):
    """Run all shards and put their parts together; every pixel must be written once."""
    planes = np.full((2, *plan.size), 254, np.uint8)
    for number in numbers or range(plan.num_shards):
        data = segment_shard(mosaic, plan, number, segmenter.metadata, segmenter.run_tiles)
        part = read_part(plan, number, data)
        top, left, height, width = part.window
        where = np.s_[:, top : top + height, left : left + width]
        assert (planes[where] == 254).all()
        planes[where] = part.class_map, part.confidence
    return planes


@settings(max_examples=200, deadline=None)
@given(
    st.tuples(st.integers(1, 900), st.integers(1, 900)),
    st.sampled_from([0.3, 0.6667, 1.0, 1.37, 2.5]),
    st.integers(1, 4),
    st.tuples(st.integers(-300, 0), st.integers(-300, 0)),
)
def test_cores_cover_the_mosaic_once_row_by_row(size, scale, tiles, origin):
    plan = plan_shards(size, METADATA, (scale, scale), tiles, origin)
    covered = np.zeros(size, np.uint8)
    last = (0, 0)
    for number in range(plan.num_shards):
        window, core, working = plan.shard(number)
        assert (core.top, core.left) >= last
        last = (core.top, core.left)
        assert min(core.height, core.width, *working) >= 1
        assert 0 <= window.top <= core.top
        assert 0 <= window.left <= core.left
        assert core.top + core.height <= window.top + window.height <= size[0]
        assert core.left + core.width <= window.left + window.width <= size[1]
        covered[core.top : core.top + core.height, core.left : core.left + core.width] += 1
    assert (covered == 1).all()
    assert plan.num_tiles() >= plan.num_shards


@pytest.mark.parametrize("scale", [1.0, 0.6667])
def test_inner_shards_waste_no_tile_and_keep_their_phase(scale):
    details = dataclasses.replace(METADATA, tile_px=512, overlap_px=64, scale=scale)
    plan = plan_shards((30_000, 40_000), details)
    assert plan.overlap_px == 160  # five sixteenths of a tile, whatever the model does with photos
    steps = {plan.shard(n).window.left for n in range(plan.shape[1] - 1)}
    assert steps == {round(4 * 352 / scale) * n for n in range(plan.shape[1] - 1)}
    assert plan.shard(plan.shape[1] + 1).working == (1568, 1568)
    # The bare minimum of tiles for the whole mosaic, but for the last row and column.
    least = np.prod([-(-(side * scale - 160) // 352) for side in plan.size])
    assert least <= plan.num_tiles() <= 1.03 * least


def test_a_window_stays_small_where_the_mosaic_is_much_finer():
    plan = plan_shards((100_000, 100_000), METADATA, (0.02, 0.02))
    assert max(plan.shard(plan.num_shards // 2).window[2:]) <= 4096


@pytest.mark.parametrize(("scale", "tiles"), [(1.0, 2), (0.6667, 1), (0.6667, 3)])
def test_shards_give_what_the_whole_photo_gives(scale, tiles, tmp_path):
    """The model looks at single pixels, so no seam may show, wherever shards begin."""
    ids = random_squares(20, 31)
    mosaic = Mosaic(write_field(tmp_path / "a.tif", ids), 64)
    segmenter = Segmenter(make_colour_model(scale=scale), threads=1)
    plan = plan_shards(mosaic.size, segmenter.metadata, None, tiles)
    assert plan.num_shards > 2
    result = whole_map(mosaic, plan, segmenter)
    np.testing.assert_array_equal(result[0], pixels_of(ids))
    whole = segmenter.segment(mosaic.cut(next(Mosaic(mosaic.path, 1000).windows())))
    np.testing.assert_array_equal(result[0], whole.class_map)
    if scale == 1:
        np.testing.assert_array_equal(result[1], whole.confidence)
    shifted = plan_shards(mosaic.size, segmenter.metadata, None, tiles, (-47, -97))
    assert shifted.origin == tuple(round(k * 32 / scale) for k in (-1, -round(97 * scale / 32)))
    np.testing.assert_array_equal(whole_map(mosaic, shifted, segmenter)[0], result[0])


def test_nothing_is_said_where_nothing_is_seen(tmp_path):
    ids = random_squares(20, 20)
    seen = np.zeros((240, 240), bool)
    seen[100:140, 3:77] = True
    mosaic = Mosaic(write_field(tmp_path / "a.tif", ids, seen), 64)
    segmenter = Segmenter(make_colour_model(), threads=1)
    runs = []

    def counted(images):
        runs.append(len(images))
        return segmenter.run_tiles(images)

    plan = plan_shards(mosaic.size, segmenter.metadata, None, 2)
    planes = np.full((2, 240, 240), 254, np.uint8)
    for number in range(plan.num_shards):
        data = segment_shard(mosaic, plan, number, segmenter.metadata, counted)
        part = read_part(plan, number, data)
        top, left, height, width = part.window
        planes[:, top : top + height, left : left + width] = part.class_map, part.confidence
    truth = pixels_of(ids)
    np.testing.assert_array_equal(planes[0], np.where(seen, truth, NO_DATA))
    assert (planes[1][~seen] == NO_DATA).all()
    assert planes[1][seen].max() <= 100
    assert 0 < sum(runs) <= 6 < plan.num_tiles()


def test_a_shard_is_a_pure_function(tmp_path):
    ids = random_squares(20, 20)
    path = write_field(tmp_path / "a.tif", ids)
    plan = plan_shards((240, 240), METADATA, None, 2)
    data = set()
    for _ in range(2):
        segmenter = Segmenter(make_colour_model(), threads=1)
        data.add(segment_shard(Mosaic(path, 64), plan, 1, segmenter.metadata, segmenter.run_tiles))
    assert len(data) == 1


def test_every_damage_of_a_part_is_noticed(tmp_path):
    ids = random_squares(10, 10)
    mosaic = Mosaic(write_field(tmp_path / "a.tif", ids), 64)
    segmenter = Segmenter(make_colour_model(), threads=1)
    plan = plan_shards(mosaic.size, segmenter.metadata, None, 1)
    data = segment_shard(mosaic, plan, 0, segmenter.metadata, segmenter.run_tiles)
    assert is_whole(data)
    for length in (0, 10, 51, 60, len(data) - 1):
        assert not is_whole(data[:length])
    for place in range(0, len(data), 37):
        changed = bytearray(data)
        changed[place] ^= 1
        assert not is_whole(bytes(changed))
    with pytest.raises(FieldDataError, match="part 0 is damaged"):
        read_part(plan, 0, data[:-1])
    other = plan_shards(mosaic.size, segmenter.metadata, None, 2)
    with pytest.raises(FieldDataError, match="part 0 of"):
        read_part(other, 0, data)


def test_ids_beyond_the_class_table_are_refused(tmp_path):
    ids = random_squares(10, 10)
    mosaic = Mosaic(write_field(tmp_path / "a.tif", ids), 64)

    def odd(images):
        return np.full((len(images), 64, 64), 7, np.uint8), np.zeros(
            (len(images), 64, 64), np.uint8
        )

    with pytest.raises(ModelFileError, match="class id 7"):
        segment_shard(mosaic, plan_shards(mosaic.size, METADATA), 0, METADATA, odd)


def test_parts_are_kept_for_the_same_mosaic_model_and_plan_only(tmp_path):
    ids = random_squares(20, 20)
    path = write_field(tmp_path / "a.tif", ids)
    segmenter = Segmenter(make_colour_model(), threads=1)
    plan = plan_shards((240, 240), segmenter.metadata, None, 2)
    data = segment_shard(Mosaic(path, 64), plan, 3, segmenter.metadata, segmenter.run_tiles)
    state = map_state(path, plan, "a" * 64)
    out = tmp_path / "out"
    folder = PartFolder(out, state)
    assert (folder.done, folder.thrown_away) == (set(), "")
    folder.save(3, data)
    (out / FOLDER / "00000004.part").write_bytes(data[:-3])
    again = PartFolder(out, state)
    assert (again.done, again.thrown_away) == ({3}, "")
    assert again.load(3) == data
    with pytest.raises(OutputError, match="part 5"):
        again.load(5)
    other_plan = plan_shards((240, 240), METADATA, None, 1)
    changes = (
        (map_state(path, plan, "b" * 64), "another model"),
        (map_state(path, other_plan, "b" * 64), "tiling"),
        (map_state(write_field(tmp_path / "b.tif", ids), other_plan, "b" * 64), "mosaic"),
    )
    for other, said in changes:
        changed = PartFolder(out, other)
        assert changed.done == set()
        assert said in changed.thrown_away
    again.delete()
    assert list(out.iterdir()) == []
    (out / "file").write_bytes(b"")
    with pytest.raises(OutputError, match="expected a folder"):
        PartFolder(out / "file", state)
