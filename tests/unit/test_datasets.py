"""The photo pool, the sampler without state, and the thread that works ahead."""

import logging
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from weedseg.data.datasets import PhotoPool, Prefetcher, photo_numbers, working_scale
from weedseg.data.index import index_farm
from weedseg.errors import FieldDataError
from weedseg.imaging import read_image, resize_image, write_png


@pytest.fixture
def farm(tmp_path):
    def make(num=10, size=(64, 80), broken=()):
        for i in range(num):
            path = tmp_path / "images" / f"{i:02d}.png"
            write_png(path, np.random.default_rng(i).integers(0, 256, (*size, 3), dtype=np.uint8))
            write_png(tmp_path / "masks" / f"{i:02d}.png", np.full(size, i % 3, np.uint8))
            if i in broken:
                path.write_bytes(path.read_bytes()[:200])
        return index_farm(tmp_path)

    return make


def test_photos_come_at_working_resolution(farm):
    found = farm(3)
    pool = PhotoPool(found, found.photos, 0.5, 16, with_masks=True)
    expected = resize_image(read_image(found.photos[2].path), 0.5)
    np.testing.assert_array_equal(pool.image(2), expected)
    assert pool.mask(2).shape == (32, 40)
    assert (pool.mask(2) == 2).all()
    assert len(pool) == 3
    with pytest.raises(ValueError, match="read-only"):
        pool.image(0)[0, 0, 0] = 1


def test_results_do_not_depend_on_the_budget(farm):
    found = farm(6, size=(700, 1000))
    small, large = (PhotoPool(found, found.photos, 1.0, mib) for mib in (5, 64))
    order = [0, 3, 1, 0, 5, 4, 2, 0]
    for i in order:
        np.testing.assert_array_equal(small.image(i), large.image(i))
    assert small._kept_bytes <= 5 << 20
    assert len(small._kept) == 2
    assert len(large._kept) == 6
    assert (small.window, large.window) == (2, 6)


def test_kept_photos_are_not_read_again(farm):
    found = farm(2)
    pool = PhotoPool(found, found.photos, 1.0, 16)
    first = pool.image(0)
    found.photos[0].path.unlink()
    assert pool.image(0) is first


def test_a_broken_photo_is_named_and_replaced(farm, caplog):
    found = farm(10, broken=(3,))
    pool = PhotoPool(found, found.photos, 1.0, 16, with_masks=True)
    with caplog.at_level(logging.WARNING, "weedseg.data.datasets"):
        image = pool.image(3)
        np.testing.assert_array_equal(image, pool.image(4))
        assert (pool.mask(3) == 1).all()
    assert sum("images/03.png" in r.message for r in caplog.records) == 1
    assert (pool.num_bad, pool.bad_names, pool.readable(3)) == (1, ("images/03.png",), 4)
    assert pool.readable(9) == 9


def test_the_last_photo_is_replaced_by_the_first(farm):
    found = farm(3, broken=(2,))
    pool = PhotoPool(found, found.photos, 1.0, 16)
    np.testing.assert_array_equal(pool.image(2), pool.image(0))


def test_too_many_broken_photos_stop(farm):
    found = farm(10, broken=(1, 2))
    pool = PhotoPool(found, found.photos, 1.0, 16, bad_photo_share=0.1)
    with pytest.raises(FieldDataError, match=r"2 of 10 .*images/01\.png, images/02\.png"):
        pool.image(1)
    pool = PhotoPool(found, found.photos, 1.0, 16, bad_photo_share=0.2)
    np.testing.assert_array_equal(pool.image(1), pool.image(3))
    strict = PhotoPool(found, found.photos, 1.0, 16, bad_photo_share=0)
    with pytest.raises(FieldDataError, match="1 of 10"):
        strict.image(1)


def test_all_photos_broken(farm):
    found = farm(2, broken=(0, 1))
    with pytest.raises(FieldDataError, match="2 of 2"):
        PhotoPool(found, found.photos, 1.0, 16, bad_photo_share=1.0).image(0)


def test_empty_pool_and_pool_without_masks(farm):
    found = farm(1)
    with pytest.raises(FieldDataError, match="without photos"):
        PhotoPool(found, [], 1.0, 16)
    with pytest.raises(FieldDataError, match="without masks"):
        PhotoPool(found, found.photos, 1.0, 16).mask(0)


def test_many_threads_see_the_same(farm):
    found = farm(8, size=(200, 300), broken=(5,))
    pool = PhotoPool(found, found.photos, 1.0, 1, with_masks=True)
    numbers = np.random.default_rng(0).integers(0, 8, 60).tolist()
    with ThreadPoolExecutor(4) as threads:
        images = list(threads.map(pool.image, numbers))
    for i, image in zip(numbers, images):
        np.testing.assert_array_equal(image, read_image(found.photos[6 if i == 5 else i].path))
    assert pool._kept_bytes == sum(a.nbytes + b.nbytes for a, b in pool._kept.values())


def test_working_scale(farm):
    assert working_scale(farm(2).photos, 0.3) == 0.3
    assert working_scale(farm(2).photos, 0) == 1.0
    assert working_scale(farm(3, size=(40, 3200)).photos, 0) == 0.5
    found = farm(1)
    found.photos[0].path.write_bytes(b"rubbish")
    with pytest.raises(FieldDataError, match="none of 1 photos"):
        working_scale(found.photos[:1], 0)


@given(
    seed=st.integers(0, 1000),
    batch=st.integers(1, 9),
    num=st.integers(1, 40),
    window=st.integers(1, 50),
)
def test_an_epoch_draws_each_photo_equally_often(seed, batch, num, window):
    repeats = 1 if num <= window else 8
    steps = num * repeats
    drawn = [n for s in range(steps) for n in photo_numbers(seed, s, batch, num, window)]
    assert set(Counter(drawn).values()) == {batch * repeats}
    for epoch in range(batch):
        part = drawn[epoch * num * repeats : (epoch + 1) * num * repeats]
        assert set(Counter(part).values()) == {repeats}


@given(step=st.integers(0, 10**6), num=st.integers(2, 5000), window=st.integers(1, 500))
def test_a_step_depends_on_its_number_only(step, num, window):
    there = photo_numbers(3, step, 8, num, window)
    photo_numbers(4, step + 1, 8, num, window)
    assert photo_numbers(3, step, 8, num, window) == there
    assert all(0 <= n < num for n in there)


def test_big_farms_decode_each_photo_once_for_several_draws():
    num, window = 100, 20
    drawn = [n for s in range(100) for n in photo_numbers(0, s, 8, num, window)]
    for start in range(0, 800, 160):
        assert len(set(drawn[start : start + 160])) == 20
    assert drawn[:100] != sorted(drawn[:100])


def test_orders_differ_by_seed_and_epoch():
    first, other = (photo_numbers(s, 0, 50, 50, 50) for s in (0, 1))
    later = photo_numbers(0, 1, 50, 50, 50)
    assert first != other
    assert first != later


def test_items_come_in_order_from_one_thread():
    threads = set()

    def make(i):
        threads.add(threading.current_thread().name)
        return i * i

    with Prefetcher(make, 3, 8) as ahead:
        assert list(ahead) == [9, 16, 25, 36, 49]
        assert list(ahead) == []
    assert len(threads) == 1
    assert threading.current_thread().name not in threads


def test_errors_reach_the_consumer():
    def make(i):
        if i == 2:
            raise FieldDataError("found", "expected", "remedy")
        return i

    ahead = Prefetcher(make, 0, 10)
    assert [next(ahead), next(ahead)] == [0, 1]
    with pytest.raises(FieldDataError, match="found"):
        next(ahead)
    assert list(ahead) == []


def test_closing_early_ends_the_thread():
    made = []

    def make(i):
        made.append(i)
        time.sleep(0.005)
        return i

    before = threading.active_count()
    with Prefetcher(make, 0, 10_000) as ahead:
        assert next(ahead) == 0
    assert threading.active_count() == before
    assert len(made) <= 4
    ahead.close()


def test_no_items():
    assert list(Prefetcher(str, 5, 5)) == []
