"""Splits: duplicates together, groups apart, tests fixed first, nested label limits."""

import json
from datetime import datetime, timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as PillowImage

from weedseg.data.duplicates import duplicate_groups, join, near_pairs
from weedseg.data.grouping import limit_order, merge, pick
from weedseg.data.index import index_farm
from weedseg.data.splits import Split, make_split
from weedseg.errors import SplitError
from weedseg.imaging import resize_image, write_png


def noise(seed, size=(48, 64)):
    rng = np.random.default_rng(seed)
    return np.kron(
        rng.integers(0, 256, (size[0] // 8, size[1] // 8, 3), dtype=np.uint8),
        np.ones((8, 8, 1), np.uint8),
    )


@pytest.fixture
def grow(tmp_path):
    """Write photos; `places` gives the folder of each, `labels` the number that have a mask."""

    def make(places, labels=10**6, weedy=lambda i: i % 2 == 0):
        for i, place in enumerate(places):
            folder = tmp_path / place
            write_png(folder / "images" / f"{i:03d}.png", noise(i))
            if i < labels:
                mask = np.zeros((48, 64), np.uint8)
                mask[:4] = 1 + int(weedy(i))
                write_png(folder / "masks" / f"{i:03d}.png", mask)
        return index_farm(tmp_path)

    return make


def names(photos):
    return {p.name for p in photos}


def check_apart(split, key):
    parts = [{key(p) for p in part} for part in (split.train, split.val, split.test)]
    assert not parts[0] & parts[2]
    assert not parts[1] & parts[2]
    assert not names(split.test) & names(split.unlabelled)


def test_whole_fields_are_held_out(grow):
    farm = grow([f"field-{i % 5}" for i in range(50)])
    split = make_split(farm, 0)
    assert (split.kind, split.basis, split.within_field) == ("holdout", "field", False)
    assert [len(p) for p in (split.train, split.val, split.test)] == [30, 10, 10]
    check_apart(split, lambda p: p.field)
    assert not {p.field for p in split.train} & {p.field for p in split.val}
    assert len(split.unlabelled) == 40


def test_basis_follows_what_differs(grow):
    farm = grow([f"one/day-{i % 4}" for i in range(24)])
    split = make_split(farm, 0)
    assert split.basis == "date"
    check_apart(split, lambda p: p.date)


def test_two_fields_with_visits_are_split_by_visit(grow):
    farm = grow([f"field-{i % 2}/day-{i % 3}" for i in range(36)])
    split = make_split(farm, 0)
    assert split.basis == "field/date"
    check_apart(split, lambda p: (p.field, p.date))


def test_two_fields_without_dates_give_a_field_as_test(grow):
    split = make_split(grow([f"field-{i % 2}" for i in range(24)]), 0)
    assert split.basis == "field"
    check_apart(split, lambda p: p.field)
    assert len(split.val) == 3


def test_one_field_is_split_within_it(grow):
    farm = grow(["."] * 30)
    split = make_split(farm, 0)
    assert (split.basis, split.within_field) == ("within-field", True)
    assert [len(p) for p in (split.train, split.val, split.test)] == [18, 6, 6]
    assert "within the field" in split.note
    weedy = [int(p.name[-7:-4]) % 2 == 0 for p in split.test]
    assert sum(weedy) == 3


def test_capture_times_make_blocks(tmp_path):
    for i in range(40):
        exif = PillowImage.Exif()
        time = datetime(2024, 5, 6, 10) + timedelta(seconds=i)
        exif[306] = time.strftime("%Y:%m:%d %H:%M:%S")
        path = tmp_path / "images" / f"{(i * 7) % 40:03d}.jpg"
        path.parent.mkdir(exist_ok=True)
        PillowImage.fromarray(noise(i)).save(path, exif=exif)
        write_png(tmp_path / "masks" / f"{(i * 7) % 40:03d}.png", np.full((48, 64), 2, np.uint8))
    split = make_split(index_farm(tmp_path), 0)
    order = {f"images/{(i * 7) % 40:03d}.jpg": i for i in range(40)}
    blocks = [{order[p.name] // 4 for p in part} for part in (split.train, split.test)]
    assert split.basis == "within-field"
    assert len(split.test) == 8
    assert len(blocks[1]) == 2
    assert not blocks[0] & blocks[1]


def test_duplicates_of_test_photos_are_nowhere_else(grow, tmp_path):
    farm = grow(["."] * 24)
    test = make_split(farm, 0).test
    copy = tmp_path / "unlabelled" / "copy.png"
    copy.parent.mkdir()
    copy.write_bytes(test[0].path.read_bytes())
    near = PillowImage.fromarray(resize_image(noise(int(test[1].path.stem)), 2))
    near.save(copy.with_name("near.jpg"), quality=60)
    again = index_farm(tmp_path)
    split = make_split(again, 0)
    assert names(split.test) == names(test)
    assert len(again.photos) == 26
    assert not names(split.unlabelled) & {"unlabelled/copy.png", "unlabelled/near.jpg"}


def test_labelled_duplicates_stay_together(grow, tmp_path):
    farm = grow(["."] * 24)
    for i in range(0, 24, 2):
        other = farm.photos[i + 1].path
        other.write_bytes(farm.photos[i].path.read_bytes())
    for seed in range(3):
        split = make_split(index_farm(tmp_path), seed)
        check_apart(split, lambda p: int(p.path.stem) // 2)
        assert not {int(p.path.stem) // 2 for p in split.unlabelled} & {
            int(p.path.stem) // 2 for p in split.test
        }


def test_limits_are_nested_and_leave_the_test_alone(grow):
    farm = grow(["."] * 40, weedy=lambda i: i % 4 == 0)
    full = make_split(farm, 3)
    smaller = set()
    for limit in range(1, 33):
        split = make_split(farm, 3, limit)
        assert split.test == full.test
        assert names(split.unlabelled) == names(full.unlabelled)
        used = names(split.train) | names(split.val)
        assert len(split.train) + len(split.val) == limit
        assert len(used) == limit
        assert smaller <= used
        assert len(split.train) >= 1
        if 2 <= limit <= 20:
            assert len(split.val) == max(1, round(limit / 5))
        smaller = used
    ten = make_split(farm, 3, 10)
    weeds = sum(int(p.path.stem) % 4 == 0 for p in ten.train)
    assert 1 <= weeds <= 3
    assert make_split(farm, 3, 1000) == full


def test_seeds_differ_and_repeat(grow):
    farm = grow(["."] * 30)
    assert make_split(farm, 1) == make_split(farm, 1)
    assert len({frozenset(names(make_split(farm, s).test)) for s in range(4)}) > 1


@pytest.mark.parametrize(("num", "folds"), [(3, 3), (4, 4), (5, 5), (12, 5), (19, 5)])
def test_few_labels_are_cross_validated(grow, num, folds):
    farm = grow(["."] * (num + 3), labels=num)
    split = make_split(farm, 0)
    assert (split.kind, split.basis) == ("cross-validation", "within-field")
    assert len(split.folds) == folds
    tested = [p.name for fold in split.folds for p in fold]
    assert sorted(tested) == sorted(names(farm.labelled))
    assert max(map(len, split.folds)) - min(map(len, split.folds)) <= 1
    assert split.train == farm.labelled
    assert split.val == split.test == ()
    others = names(farm.unlabelled)
    assert names(split.unlabelled) == (others if num <= 3 else names(farm.photos))
    assert ("only photos that test nothing" in split.note) == (num <= 3)


def test_folds_follow_fields(grow):
    split = make_split(grow([f"field-{i % 3}" for i in range(12)]), 0)
    assert split.basis == "field"
    assert len(split.folds) == 3
    assert all(len({p.field for p in fold}) == 1 for fold in split.folds)


@pytest.mark.parametrize(("num", "kind"), [(0, "unlabelled"), (1, "untested"), (2, "untested")])
def test_too_few_labels(grow, num, kind):
    farm = grow(["."] * 5, labels=num)
    split = make_split(farm, 0)
    assert split.kind == kind
    assert len(split.train) == num
    assert split.unlabelled == farm.photos
    assert not split.folds
    assert "accuracy unknown" in split.note or not num


def test_limit_below_the_cross_validation(grow):
    farm = grow(["."] * 12)
    split = make_split(farm, 0, 4)
    assert (split.kind, len(split.folds)) == ("cross-validation", 4)
    assert names(make_split(farm, 0, 3).train) < names(split.train)


def test_only_copies_of_one_photo(grow, tmp_path):
    farm = grow(["."] * 4)
    for photo in farm.photos[1:]:
        photo.path.write_bytes(farm.photos[0].path.read_bytes())
    split = make_split(index_farm(tmp_path), 0)
    assert split.kind == "untested"
    assert "accuracy unknown" in split.note


def test_published_test(grow):
    farm = grow(["."] * 12)
    wanted = [p.name for p in farm.photos[:4]]
    split = make_split(farm, 0, 5, fixed_test=wanted)
    assert (split.kind, split.basis) == ("holdout", "within-field")
    assert names(split.test) == set(wanted)
    assert (len(split.train), len(split.val)) == (4, 1)
    with pytest.raises(SplitError, match=r"'gone\.png' is not among"):
        make_split(farm, 0, fixed_test=["gone.png"])
    with pytest.raises(SplitError, match="no labelled photo outside"):
        make_split(farm, 0, fixed_test=[p.name for p in farm.photos])


def test_round_trip_through_json(grow):
    farm = grow(["."] * 22)
    for split in (make_split(farm, 0), make_split(farm, 0, 10)):
        assert Split.from_dict(json.loads(json.dumps(split.to_dict())), farm) == split
    values = make_split(farm, 0).to_dict()
    values["train"] = ["gone.png"]
    with pytest.raises(SplitError, match=r"gone\.png"):
        Split.from_dict(values, farm)


def test_unreadable_photos_are_groups_of_their_own(grow, tmp_path):
    farm = grow(["."] * 22, labels=20)
    farm.photos[21].path.write_bytes(b"rubbish")
    assert len(set(duplicate_groups(farm.photos).tolist())) == 22
    assert make_split(index_farm(tmp_path), 0).kind == "holdout"


@given(st.lists(st.integers(0, 2**64 - 1), max_size=30), st.integers(0, 12))
def test_near_pairs_counts_bits(values, bits):
    values = values + [v ^ 0b1011 for v in values[:5]]
    expected = {
        (i, j)
        for i in range(len(values))
        for j in range(i + 1, len(values))
        if bin(values[i] ^ values[j]).count("1") <= bits
    }
    assert set(near_pairs(np.array(values, np.uint64), bits)) == expected


def test_joining_goes_through_others():
    assert join(5, [(3, 4), (4, 1)]).tolist() == [0, 1, 2, 1, 1]
    assert merge(["a", "b", "a", "c"], [0, 1, 1, 2]).tolist() == [0, 0, 0, 3]


@given(
    groups=st.lists(st.integers(0, 6), min_size=2, max_size=40),
    seed=st.integers(0, 50),
    share=st.floats(0.1, 0.6),
)
def test_picking_takes_whole_groups_and_leaves_one(groups, seed, share):
    rng = np.random.default_rng(seed)
    numbers = np.array(groups)
    chosen = pick(numbers, rng.random(len(groups)) < 0.5, share, np.random.default_rng(seed))
    inside, outside = set(numbers[chosen].tolist()), set(numbers[~chosen].tolist())
    assert not inside & outside
    assert outside
    assert bool(inside) == (len(set(groups)) > 1)


@given(st.lists(st.booleans(), min_size=1, max_size=40), st.integers(0, 9))
def test_every_start_holds_its_share_of_weeds(flags, seed):
    order = limit_order(dict(enumerate(flags)), np.random.default_rng(seed))
    assert sorted(order) == list(range(len(flags)))
    for end in range(1, len(flags) + 1):
        weedy = sum(flags[i] for i in order[:end])
        assert abs(weedy - end * sum(flags) / len(flags)) <= 1.01
