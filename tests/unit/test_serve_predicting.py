"""Decoders, the model shelf and the queue, without HTTP."""

import asyncio
import base64
import io
import os
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PillowImage

from weedseg.errors import ConfigError, ModelFileError
from weedseg.serve import answers
from weedseg.serve.decoding import Decoder, clean_name
from weedseg.serve.headers import MAX_PX_PER_BYTE
from weedseg.serve.models import ModelShelf
from weedseg.serve.predicting import Predictor, Ticket
from weedseg.serve.problems import Problem, from_error, respond
from weedseg.serve.settings import Settings


def _png(height, width, colour=(0, 255, 0)):
    buffer = io.BytesIO()
    PillowImage.new("RGB", (width, height), colour).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def folder(tmp_path, make_colour_model):
    for name, tile_px in (("first", 64), ("second", 96)):
        (tmp_path / "models" / name).mkdir(parents=True)
        data = make_colour_model(tile_px=tile_px)
        (tmp_path / "models" / name / "model.onnx").write_bytes(data)
    return tmp_path


def _settings(folder, **values):
    return Settings(
        models=folder / "models",
        data=folder / "data",
        decode_workers=1,
        infer_threads=1,
        **{"queue_length": 2, **values},
    )


@pytest.fixture
def predictor(folder):
    settings = _settings(folder, deadline_s=0.4)
    opened = Predictor(settings, ModelShelf(settings))
    yield opened
    opened.close()


def _infers(predictor):
    text = predictor.metrics.text().decode()
    lines = [line for line in text.splitlines() if 'count{stage="infer"}' in line]
    return float(lines[0].split()[-1]) if lines else 0.0


# --- decoding ----------------------------------------------------------------------------------


HEIC = (
    "AAAAHGZ0eXBoZWljAAAAAG1pZjFoZWljbWlhZgAAAX1tZXRhAAAAAAAAACFoZGxyAAAAAAAAAABwaWN0AAAAAAAA"
    "AAAAAAAAAAAAACJpbG9jAAAAAERAAAEAAQAAAAABoQABAAAAAAAAAF4AAAAjaWluZgAAAAAAAQAAABVpbmZlAgAA"
    "AAABAABodmMxAAAAAA5waXRtAAAAAAABAAAA/WlwcnAAAADdaXBjbwAAAHZodmNDAQNwAAAAkAAAAAAAHvAA/P34"
    "+AAADwNgAAEAGEABDAH//wNwAAADAJAAAAMAAAMAHroCQGEAAQAqQgEBA3AAAAMAkAAAAwAAAwAeoCCBBZbq5Ka5"
    "uAhoMCAAAAMDIAAAAwAhYgABAAZEAcFzwIkAAAATY29scm5jbHgAAQANAAaAAAAAFGlzcGUAAAAAAAAAQAAAAEAA"
    "AAAoY2xhcAAAAEAAAAABAAAAMAAAAAEAAAAAAAAAAv////AAAAACAAAAEHBpeGkAAAAAAwgICAAAABhpcG1hAAAA"
    "AAAAAAEAAQWBAgMFhAAAAGZtZGF0AAAAWigBrxOA9SeBP//YlR/+3Pnh93ZvEq3r9LfwDf/ojizaiV7KEow3uCzR"
    "GroXMMxFoqr98965lfWjyGpNeBjbZYV9cIDHAIUAAfetApZzoV84tgnLXwmoaO4cyw=="
)
"""64 x 48 px, red on the left and green on the right, as a phone would pack it (HEVC)."""


@pytest.fixture
def decoder(tmp_path):
    opened = Decoder(Settings(decode_workers=1, data=tmp_path, max_pixels=2_000_000, decode_s=3))
    yield opened
    opened.close()


def test_pixels_come_back_as_they_are(decoder):
    pixels = np.random.default_rng(0).integers(0, 255, (700, 900, 3), np.uint8)
    buffer = io.BytesIO()
    PillowImage.fromarray(pixels).save(buffer, "PNG")
    assert np.array_equal(decoder.decode(buffer.getvalue(), "a.png"), pixels)


def test_a_killed_decoder_is_replaced(decoder):
    assert decoder.decode(_png(8, 8), "a.png").shape == (8, 8, 3)
    decoder._workers[0]._process.kill()
    with pytest.raises(Problem) as refused:
        decoder.decode(_png(8, 8), "a.png")
    assert refused.value.status == 422
    assert decoder.decode(_png(8, 8), "a.png").shape == (8, 8, 3)


def test_a_decoder_that_hangs_is_replaced_in_time(decoder):
    decoder.decode(_png(8, 8), "a.png")
    os.kill(decoder._workers[0]._process.pid, 19)  # SIGSTOP
    start = time.monotonic()
    with pytest.raises(Problem, match="takes too long"):
        decoder.decode(_png(8, 8), "a.png")
    assert 2.9 < time.monotonic() - start < 8
    assert decoder.decode(_png(8, 8), "a.png").shape == (8, 8, 3)


def test_memory_of_a_decoder_is_limited(tmp_path):
    settings = Settings(decode_workers=1, data=tmp_path, decode_memory_bytes=32 << 20)
    decoder = Decoder(settings)
    try:
        with pytest.raises(Problem, match="too much memory") as refused:
            decoder.decode(_png(3100, 3100), "a.png")
        assert refused.value.status == 413
        assert decoder.decode(_png(80, 80), "a.png").shape == (80, 80, 3)
    finally:
        decoder.close()


def test_the_default_memory_fits_a_phone_photo_of_50_mp(tmp_path):
    buffer = io.BytesIO()
    PillowImage.new("RGB", (8192, 6144), "green").save(buffer, "JPEG")
    photo = buffer.getvalue() + bytes(8192 * 6144 // MAX_PX_PER_BYTE)
    decoder = Decoder(Settings(decode_workers=1, data=tmp_path, decode_s=60))
    try:
        assert decoder.decode(photo, "a.jpg").shape == (6144, 8192, 3)
    finally:
        decoder.close()


def test_sizes_are_refused_from_the_header(decoder):
    with pytest.raises(Problem, match="at most 2 million pixels") as refused:
        decoder.decode(_png(1500, 1500), "a.png")
    assert refused.value.status == 413


def test_a_decoder_has_no_secrets_and_no_rights(decoder, monkeypatch):
    decoder.decode(_png(8, 8), "a.png")
    process = Path(f"/proc/{decoder._workers[0]._process.pid}")
    assert b"WEEDSEG" not in (process / "environ").read_bytes()
    assert "NoNewPrivs:\t1" in (process / "status").read_text()
    limits = (process / "limits").read_text()
    for name in ("Max file size", "Max processes", "Max core file size"):
        (line,) = (line for line in limits.splitlines() if line.startswith(name))
        assert line.removeprefix(name).split()[:2] == ["0", "0"]


def test_heic_is_read_where_its_package_is(decoder, tmp_path):
    pi_heif = pytest.importorskip("pi_heif", reason="optional: pi-heif")
    assert pi_heif.is_supported(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")
    pixels = decoder.decode(base64.b64decode(HEIC), "IMG_0001.HEIC")
    assert pixels.shape == (48, 64, 3)
    assert np.abs(pixels[:, 8:24].mean((0, 1)) - (200, 40, 40)).max() < 12
    assert np.abs(pixels[:, 40:56].mean((0, 1)) - (40, 160, 60)).max() < 12
    with pytest.raises(Problem, match="HEIC") as refused:
        decoder.decode(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "a.heic")
    assert refused.value.status == 422


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("../../etc/passwd", "passwd"),
        ("C:\\a\\b.jpg", "b.jpg"),
        ("a\0\n.png", "a.png"),
        ("/", "photo"),
    ],
)
def test_names_are_cleaned(given, kept):
    assert clean_name(given) == kept


# --- models ------------------------------------------------------------------------------------


def test_promotion_is_kept_and_undone(folder):
    shelf, other = ModelShelf(_settings(folder)), ModelShelf(_settings(folder))
    assert (shelf.default.name, shelf.previous) == ("first", None)
    shelf.promote("second")
    shelf.promote("second")
    assert other.default.name == "second"  # another process follows
    assert other.previous.name == "first"
    assert other.rollback().name == "first"
    with pytest.raises(Problem, match="no way back"):
        shelf.rollback()
    with pytest.raises(Problem, match="no such model"):
        shelf.promote("third")


def test_a_promoted_model_that_is_gone_gives_way(folder, caplog):
    ModelShelf(_settings(folder)).promote("second")
    (folder / "models" / "second" / "model.onnx").unlink()
    assert ModelShelf(_settings(folder)).default.name == "first"
    (folder / "data" / "models.json").write_bytes(b"{")
    assert ModelShelf(_settings(folder)).default.name == "first"


def test_a_folder_without_models_is_a_mistake(tmp_path):
    with pytest.raises(ConfigError, match="no model in"):
        ModelShelf(Settings(models=tmp_path, data=tmp_path))


def test_the_released_model_is_served_by_default(tmp_path):
    model = ModelShelf(Settings(data=tmp_path)).default
    assert model.evaluated
    assert "never on yours" in model.evaluation_note


def test_a_file_that_changes_behind_the_service_is_not_run(folder, predictor, make_colour_model):
    path = folder / "models" / "first" / "model.onnx"
    path.write_bytes(make_colour_model(tile_px=128))
    with pytest.raises(ModelFileError, match="has changed"):
        predictor.predict(_png(8, 8), "a.png")


# --- results -----------------------------------------------------------------------------------


def test_areas_and_patches_are_right(predictor):
    picture = PillowImage.new("RGB", (60, 40), (0, 0, 0))
    picture.paste((255, 0, 0), (2, 3, 12, 8))  # 10 x 5 px of weed
    picture.paste((255, 0, 0), (30, 20, 34, 24))
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    told = answers.to_json(predictor.predict(buffer.getvalue(), "x/a.png"), mm_per_px=100)
    assert told["photo"] == "a.png"
    assert [(p["area_px"], p["bbox"]) for p in told["patches"]] == [
        (50, [2, 3, 10, 5]),
        (16, [30, 20, 4, 4]),
    ]
    weed = told["classes"][2]
    assert (weed["area_px"], weed["area_m2"], weed["colour"]) == (66, 0.66, "#ff0000")
    assert weed["coverage"] == pytest.approx(66 / 2400)
    assert (told["evaluated"], "never evaluated" in told["evaluation_note"]) == (False, True)


def test_many_patches_are_cut_off_and_it_is_said(predictor):
    pixels = np.zeros((100, 100, 3), np.uint8)
    pixels[::3, ::3, 0] = 255
    buffer = io.BytesIO()
    PillowImage.fromarray(pixels).save(buffer, "PNG")
    told = answers.to_json(predictor.predict(buffer.getvalue(), "a.png"))
    assert len(told["patches"]) == answers.MAX_PATCHES
    assert str(34 * 34 - answers.MAX_PATCHES) in told["warnings"][0]


@pytest.mark.parametrize(("score", "num_warnings"), [(None, 0), (0.9, 0), (1.1, 1)])
def test_a_photo_unlike_those_of_the_training_is_announced(predictor, score, num_warnings):
    buffer = io.BytesIO()
    PillowImage.new("RGB", (60, 40)).save(buffer, "PNG")
    found = predictor.predict(buffer.getvalue(), "a.png")
    found = replace(found, result=replace(found.result, ood_score=score))
    warnings = answers.to_json(found)["warnings"]
    assert len([text for text in warnings if "unlike the photos" in text]) == num_warnings


# --- queue -------------------------------------------------------------------------------------


async def _never():
    await asyncio.sleep(60)


def _work(predictor, data):
    return lambda ticket: predictor.predict(data, "a.png", ticket=ticket).name


def test_late_work_never_reaches_the_model(predictor):
    predictor.predict(_png(8, 8), "a.png")
    before = _infers(predictor)
    with predictor._copy(Ticket(None)):
        start = time.monotonic()
        with pytest.raises(Problem) as late:
            asyncio.run(predictor.accept(_work(predictor, _png(8, 8)), _never))
        assert late.value.status == 504
        assert 0.3 < time.monotonic() - start < 0.4 + 0.5
    time.sleep(0.2)
    assert _infers(predictor) == before


def test_abandoned_work_never_reaches_the_model(predictor):
    predictor.predict(_png(8, 8), "a.png")
    before = _infers(predictor)

    async def gone():
        await asyncio.sleep(0.05)

    with predictor._copy(Ticket(None)):
        release = threading.Timer(0.2, lambda: None)
        release.start()

        async def ask():
            task = asyncio.ensure_future(predictor.accept(_work(predictor, _png(8, 8)), gone))
            await asyncio.sleep(0.2)
            return task

        async def run():
            task = await ask()
            predictor._copies.put(predictor._all_copies[0])
            with pytest.raises(Problem) as left:
                await task
            assert left.value.status in (499, 504)
            predictor._copies.get()

        asyncio.run(run())
    assert _infers(predictor) == before


def test_exactly_the_excess_is_refused(predictor):
    predictor.predict(_png(8, 8), "a.png")

    async def burst():
        work = _work(predictor, _png(8, 8))
        tasks = [asyncio.ensure_future(predictor.accept(work, _never)) for _ in range(30)]
        await asyncio.sleep(0.1)
        predictor._copies.put(predictor._all_copies[0])
        return await asyncio.gather(*tasks, return_exceptions=True)

    with predictor._copy(Ticket(None)):
        answered = asyncio.run(burst())
        predictor._copies.get()
    refused = [a for a in answered if isinstance(a, Problem)]
    assert {a.status for a in refused} == {503}
    assert all("Retry-After" in a.headers for a in refused)
    assert answered.count("a.png") == 3  # two wait, one is worked on
    assert "weedseg_queue_depth 0.0" in predictor.metrics.text().decode()


# --- problems ----------------------------------------------------------------------------------


def test_internal_errors_say_nothing_internal(caplog):
    problem = from_error(ModelFileError("/secret/path", "x", "y"))
    assert "secret" not in problem.detail
    assert respond("/v2/models", problem).body == (
        b'{"error":"the service cannot do this at the moment"}'
    )
