"""The shards of a map on a Ray cluster of two workers, and mosaics in a store (moto's S3)."""

import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest
from colour_field import CROP, SOIL, WEED, random_squares, write_field
from colour_model import make_colour_model

from weedseg.bench import cluster as bench
from weedseg.bench.maps_mosaic import Block
from weedseg.cli import main
from weedseg.edge.predict import predict_folder
from weedseg.edge.segmenter import Segmenter
from weedseg.errors import (
    ConfigError,
    FieldDataError,
    OutputError,
    RuntimeUnavailableError,
)
from weedseg.imaging import write_png
from weedseg.maps import storage
from weedseg.maps.cells import CellOptions
from weedseg.maps.cluster import cluster, run_ray
from weedseg.maps.cluster_predict import predict_on_cluster
from weedseg.maps.engine import ShardJob, run_local
from weedseg.maps.parts import map_state
from weedseg.maps.run import MapOptions, make_map
from weedseg.maps.shards import ShardPlan, plan_shards
from weedseg.maps.storage import StoredParts, fetch, origin, publish, url_of
from weedseg.maps.stored_map import make_stored_map

BUCKET = "fields"
SECRETS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}


@pytest.fixture(scope="module")
def s3(tmp_path_factory):
    """An S3 server on loopback with a bucket; yields the URL of the bucket."""
    import fsspec
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    cache = str(tmp_path_factory.mktemp("cache"))
    settings = SECRETS | {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_MAX_ATTEMPTS": "1",
        storage.CACHE_VARIABLE: cache,
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in settings.items():
            patch.setenv(name, value)
        store = fsspec.filesystem("s3")
        store.mkdir(BUCKET)
        yield f"s3://{BUCKET}"
        store.clear_instance_cache()
    server.stop()


@pytest.fixture(scope="module")
def two_workers(s3):
    """A cluster that all tests of this file share; its workers know the store."""
    with cluster(2) as ray:
        yield ray


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """A mosaic with its model and plan."""
    folder = tmp_path_factory.mktemp("work")
    model = folder / "colours.onnx"
    model.write_bytes(make_colour_model())
    mosaic = write_field(folder / "field.tif", random_squares(25, 25))
    plan = plan_shards((300, 300), Segmenter(model, threads=1).metadata, tiles=3)
    assert plan.num_shards >= 9
    return ShardJob(mosaic=mosaic, model=model, plan=plan)


@pytest.fixture(scope="module")
def local_parts(work):
    """What the local engine makes of the mosaic."""
    saved = {}
    assert sorted(run_local(work, range(work.plan.num_shards), saved.__setitem__, 2)) == sorted(
        saved
    )
    return saved


def run(job, numbers=None):
    saved = {}
    numbers = range(job.plan.num_shards) if numbers is None else numbers
    assert sorted(run_ray(job, numbers, saved.__setitem__, 2)) == sorted(saved)
    return saved


def test_shards_are_those_of_the_local_engine(two_workers, work, local_parts):
    assert run(work) == local_parts
    assert run(work, [3, 5]) == {n: local_parts[n] for n in (3, 5)}
    assert run(work, []) == {}


def _workers():
    """Return the processes of this test that run shards."""
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            if process.name().startswith("ray::_segment"):
                found.append(process)
        except psutil.NoSuchProcess:
            continue
    return found


def test_a_killed_worker_loses_no_shard(two_workers, work, local_parts):
    saved, killed = {}, []
    running = run_ray(work, range(work.plan.num_shards), saved.__setitem__, 2)
    for _ in running:
        if not killed and (busy := _workers()):
            busy[0].kill()
            killed.append(busy[0].pid)
    assert killed
    assert saved == local_parts


def test_everything_of_the_cluster_listens_on_loopback_only(two_workers):
    own = psutil.Process()
    processes = [own, *own.children(recursive=True)]
    listening = {
        place.laddr.ip
        for process in processes
        for place in process.net_connections("inet")
        if place.status == psutil.CONN_LISTEN
    }
    assert len(processes) > 4
    assert listening
    assert {ip.removeprefix("::ffff:") for ip in listening} == {"127.0.0.1"}


def test_the_errors_of_a_shard_are_those_of_the_local_engine(two_workers, work, tmp_path):
    broken = tmp_path / "broken.tif"
    data = work.mosaic.read_bytes()
    broken.write_bytes(data[: len(data) // 2])
    with pytest.raises(FieldDataError, match=r"broken\.tif cannot be read"):
        run(ShardJob(mosaic=broken, model=work.model, plan=work.plan))
    nowhere = ShardJob(mosaic=tmp_path / "no.tif", model=work.model, plan=work.plan)
    with pytest.raises(FieldDataError, match=r"no\.tif is not on machine .* give its URL"):
        run(nowhere)


POISON = """
import os

class Poison(ShardPlan):
    def shard(self, number):
        os._exit(1)
"""


def test_a_shard_that_kills_its_workers_fails_after_three_attempts(two_workers, work):
    names = {"__name__": "__main__", "ShardPlan": ShardPlan}  # so that workers get it by value
    exec(POISON, names)  # noqa: S102
    plan = names["Poison"](**vars(work.plan))
    wanted = r"part 0 failed on the cluster: .* in 3 attempts"
    with pytest.raises(RuntimeUnavailableError, match=wanted):
        list(run_ray(replace(work, plan=plan), [0], {}.__setitem__, 2))


def test_without_ray_a_sentence_says_what_to_install(work, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(RuntimeUnavailableError, match=r"ray is not installed.*weedseg\[cluster\]"):
        run(work)


def photos_of(folder):
    """Draw photos in two folders, two of one name, and one that is none."""
    rng = np.random.default_rng(1)
    for name in ("a/1.png", "b/1.png", "b/2.png", "b/2.jpg", "c d/3.png"):
        image = np.asarray([SOIL, CROP, WEED], np.uint8)[rng.integers(0, 3, (10, 12))]
        write_png(folder / name, image.repeat(9, 0).repeat(9, 1))
    (folder / "b" / "bad.jpg").write_bytes(b"no photo")
    return folder


def contents(folder):
    return {
        p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()
    }


def test_photos_give_what_they_give_here(two_workers, work, tmp_path):
    folder, here, there = photos_of(tmp_path / "in"), tmp_path / "here", tmp_path / "there"
    expected = predict_folder(Segmenter(work.model, threads=1), folder, here)
    seen = []
    report = predict_on_cluster(work.model, folder, there, workers=2, progress=seen.append)
    assert contents(there) == contents(here)
    assert report == replace(expected, table=there / "coverage.csv")
    assert [p.done for p in seen] == [1, 2, 3, 4, 5, 6]
    (there / "b" / "1_classes.png").unlink()
    again = predict_on_cluster(work.model, folder, there, workers=2)
    assert (again.num_segmented, again.num_skipped, len(again.errors)) == (1, 4, 1)
    assert contents(there) == contents(here)


def test_the_predict_command_takes_an_engine(two_workers, work, tmp_path, capsys):
    folder = photos_of(tmp_path / "in") / "a"
    arguments = ["predict", str(folder), "--model", str(work.model), "--out"]
    assert main([*arguments, str(tmp_path / "there"), "--engine", "ray"]) == 0
    assert "1 photos segmented" in capsys.readouterr().out
    assert main([*arguments, str(tmp_path / "here"), "--threads", "1"]) == 0
    assert contents(tmp_path / "there") == contents(tmp_path / "here")
    assert main([*arguments, str(tmp_path / "no"), "--engine", "spark"]) == ConfigError.exit_code


# --- stores ------------------------------------------------------------------------------------


@pytest.fixture
def stored_field(s3, work):
    """The mosaic of `work` in the store."""
    import fsspec

    url = f"{s3}/in/field.tif"
    fsspec.filesystem("s3").put_file(str(work.mosaic), url)
    return url


def listed(url):
    import fsspec

    store, place = fsspec.core.url_to_fs(url, use_listings_cache=False)
    return {name.removeprefix(f"{place}/") for name in store.find(place)}


def content(url):
    import fsspec

    store, place = fsspec.core.url_to_fs(url, use_listings_cache=False)
    return store.cat_file(place)


def test_a_mosaic_of_the_store_gives_the_same_shards(two_workers, work, local_parts, stored_field):
    copy = fetch(stored_field)
    assert origin(copy) == stored_field
    assert copy.read_bytes() == work.mosaic.read_bytes()
    elsewhere = copy.rename(copy.with_name("gone.tif"))  # workers make a copy of their own
    try:
        job = ShardJob(mosaic=copy, model=work.model, plan=work.plan)
        assert run(job, [0, 7]) == {n: local_parts[n] for n in (0, 7)}
        assert copy.exists()
    finally:
        elsewhere.unlink()


def test_a_file_is_copied_once_and_anew_when_it_changes(s3):
    import fsspec

    store, url = fsspec.filesystem("s3"), f"{s3}/in/changing.tif"
    store.pipe_file(url, b"first")
    copy = fetch(url)
    inode, changed = copy.stat().st_ino, copy.stat().st_mtime
    assert (fetch(url), copy.stat().st_ino) == (copy, inode)
    assert abs(changed - time.time()) < 60
    store.pipe_file(url, b"after")
    other = fetch(url)
    assert (copy.read_bytes(), other.read_bytes()) == (b"first", b"after")


def test_many_processes_share_one_copy(s3):
    import fsspec

    url = f"{s3}/in/shared.tif"
    fsspec.filesystem("s3").pipe_file(url, b"x" * 500_000)
    with ThreadPoolExecutor(4) as pool:
        copies = set(pool.map(fetch, [url] * 8))
    assert len(copies) == 1
    assert not list(copies.pop().parent.glob("*.part"))


def options(mosaic, out, work, **changes):
    cells = CellOptions(cell_m=0.25, min_patch_m2=0)
    return MapOptions(mosaic=Path(mosaic), out=Path(out), model=work.model, cells=cells, **changes)


@pytest.fixture(scope="module")
def plain(work, tmp_path_factory):
    """The map of the mosaic, made without a store; the folder and what `make_map` said."""
    folder = tmp_path_factory.mktemp("plain")
    return folder, make_map(options(work.mosaic, folder, work, workers=2))


def test_a_map_goes_from_store_to_store(two_workers, work, stored_field, s3, plain):
    folder, made = plain
    out = f"{s3}/maps/field"
    report = make_stored_map(options(stored_field, out, work, engine="ray", workers=2))
    assert listed(out) == {path.name for path in made.files}
    assert report.num_run == report.num_shards == made.num_shards
    for name in ("classes.tif", "confidence.tif", "cells.csv", "cells.geojson"):
        assert content(f"{out}/{name}") == (folder / name).read_bytes(), name
    assert json.loads(content(f"{out}/map.json"))["totals"] == made.values["totals"]


def test_another_machine_goes_on(work, stored_field, s3, plain, tmp_path, monkeypatch):
    """The first machine is lost after some shards, with its disk."""
    out = f"{s3}/maps/moved"

    def lose_power(progress):
        if progress.done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_stored_map(options(stored_field, out, work, workers=1), lose_power)
    assert {".parts/00000000.part", ".parts/00000001.part"} <= listed(out)
    assert "classes.tif" not in listed(out)
    monkeypatch.setenv(storage.CACHE_VARIABLE, str(tmp_path / "another"))
    report = make_stored_map(options(stored_field, out, work, workers=2))
    assert 0 < report.num_run <= report.num_shards - 2
    folder, made = plain
    assert content(f"{out}/classes.tif") == (folder / "classes.tif").read_bytes()
    assert listed(out) == {path.name for path in made.files}


def test_the_command_takes_urls(s3, work, plain, tmp_path, capsys):
    out = tmp_path / "shared" / "map"
    arguments = ["map", work.mosaic.as_uri(), "--out", out.as_uri(), "--model", str(work.model)]
    assert main([*arguments, "--cell-m", "0.25", "--min-patch-m2", "0", "--workers", "2"]) == 0
    assert f"map and report: {out.as_uri()}" in capsys.readouterr().out
    folder, made = plain
    assert (out / "classes.tif").read_bytes() == (folder / "classes.tif").read_bytes()
    assert {path.name for path in out.iterdir()} == {path.name for path in made.files}
    assert not (out / ".parts").exists()


def test_the_benchmark_compares_both_engines(two_workers, tmp_path, monkeypatch):
    photo = np.random.default_rng(0).integers(0, 256, (256, 320, 3), np.uint8)
    block = Block(image=photo, mask=photo[..., 0] % 3, what="noise")
    monkeypatch.setattr(bench, "drawn_block", lambda: block)
    monkeypatch.setattr(bench, "_SMALL_SIDE_PX", 300)
    model = tmp_path / "colours.onnx"
    model.write_bytes(make_colour_model(tile_px=256, overlap_px=32))
    line = bench.measure_cluster(model, megapixels=1.5, workers=2)
    assert line["identical"]
    assert min(line["processor_seconds"].values()) > 0
    assert line["overhead_share"] > -1
    assert line["num_shards"] >= 4


def test_stored_parts_of_another_model_are_not_used(s3, work, tmp_path):
    state = map_state(work.mosaic, work.plan, "a" * 64)
    first = StoredParts(tmp_path / "1", state, f"{s3}/parts", "field")
    first.save(3, b"no part")
    assert ".parts/00000003.part" in listed(f"{s3}/parts")
    damaged = StoredParts(tmp_path / "2", state, f"{s3}/parts", "field")
    assert damaged.done == set()
    other = map_state(work.mosaic, work.plan, "b" * 64)
    StoredParts(tmp_path / "3", other, f"{s3}/parts", "field")
    assert listed(f"{s3}/parts") == {".parts/state.json"}


@pytest.mark.parametrize(
    ("path", "url"),
    [
        ("s3://fields/a b.tif", "s3://fields/a b.tif"),
        (Path("s3://fields/a.tif"), "s3://fields/a.tif"),
        (Path("file:///data/a.tif"), "file:///data/a.tif"),
        ("field.tif", None),
        (Path("/data/s3:/field.tif"), None),
        ("C:/field.tif", None),
    ],
)
def test_urls_are_known_from_paths(path, url):
    assert url_of(path) == url


def test_stores_that_refuse_are_said_in_a_sentence(s3, tmp_path, monkeypatch):
    with pytest.raises(FieldDataError, match=r"s3://fields/in/no\.tif is not there"):
        fetch(f"{s3}/in/no.tif")
    with pytest.raises(FieldDataError, match=r"cannot be read|is not there"):
        fetch("s3://nobody/field.tif")
    with pytest.raises(ConfigError, match="correct the URL"):
        fetch("nowhere://field.tif")
    (tmp_path / "map.json").write_text("{}")
    with pytest.raises(OutputError, match="cannot be written"):
        publish(tmp_path, "s3://nobody/map")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    import fsspec

    fsspec.filesystem("s3").clear_instance_cache()
    with pytest.raises(FieldDataError, match="cannot be read"):
        fetch(f"{s3}/in/field.tif")
    fsspec.filesystem("s3").clear_instance_cache()


def test_a_folder_for_copies_of_somebody_else_is_not_trusted(s3, tmp_path, monkeypatch):
    monkeypatch.delenv(storage.CACHE_VARIABLE)
    monkeypatch.setattr(storage.tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(storage.os, "getuid", lambda: 54321)  # the folder is made by this user
    with pytest.raises(OutputError, match=r"weedseg-54321.*belongs to somebody else"):
        fetch(f"{s3}/in/shared.tif")
