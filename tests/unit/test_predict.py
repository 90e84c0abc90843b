import csv
import os
import shutil

import cv2
import numpy as np
import pytest

from weedseg.classes import DEFAULT_CLASSES, Role
from weedseg.edge import predict as predict_module
from weedseg.edge.photos import find_photos
from weedseg.edge.predict import draw_overlay, predict_folder
from weedseg.edge.released import default_model
from weedseg.edge.segmenter import Segmenter
from weedseg.errors import ImageError, ModelFileError, OutputError
from weedseg.imaging import read_image, read_mask_pixels, write_png


@pytest.fixture(scope="module")
def segmenter(colour_model):
    return Segmenter(colour_model, threads=1)


@pytest.fixture
def farm(tmp_path, field_photo):
    """Six photos in three folders, two of one name, one with a mask, one that is broken."""
    root = tmp_path / "farm"
    sizes = {
        "a/1.png": (40, 50),
        "b/1.png": (90, 70),
        "b/2.png": (64, 64),
        "c/images/3.png": (5, 1),
    }
    for number, (name, size) in enumerate(sizes.items()):
        write_png(root / name, field_photo(*size, seed=number))
    write_png(root / "c/masks/3.png", np.zeros((5, 1), np.uint8))
    write_png(root / "b/2_mask.png", np.zeros((64, 64), np.uint8))
    (root / "b/broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 no photo")
    (root / "notes.txt").write_text("no photo")
    return root


def contents(folder):
    return {
        p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()
    }


def table_rows(path):
    return list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))


def test_results_and_table(segmenter, farm, tmp_path, expect_colours):
    out = tmp_path / "out"
    seen = []
    report = predict_folder(segmenter, farm, out, progress=seen.append)
    assert (report.num_segmented, report.num_skipped) == (4, 0)
    assert list(report.errors) == ["b/broken.jpg"]
    assert [p.done for p in seen] == [1, 2, 3, 4, 5]
    assert {p.total for p in seen} == {5}
    assert [p.photo for p in seen if p.result is None] == ["b/broken.jpg"]
    rows = {row["photo"]: row for row in table_rows(report.table)}
    assert list(rows) == ["a/1.png", "b/1.png", "b/2.png", "c/images/3.png"]
    for name, row in rows.items():
        photo = read_image(farm / name)
        class_map, _ = expect_colours(photo)
        stem = out / name[:-4]
        np.testing.assert_array_equal(
            read_mask_pixels(stem.with_name(stem.name + "_classes.png")), class_map
        )
        confidence = read_mask_pixels(stem.with_name(stem.name + "_confidence.png"))
        assert float(row["mean_confidence"]) == pytest.approx(confidence.mean(), abs=0.01)
        assert read_image(stem.with_name(stem.name + "_overlay.jpg")).shape == photo.shape
        assert float(row["share_crop"]) == pytest.approx((class_map == 1).mean(), abs=1e-6)
        assert float(row["weed_percent"]) == pytest.approx(100 * (class_map == 2).mean(), abs=1e-4)
        assert (int(row["height_px"]), int(row["width_px"])) == photo.shape[:2]
        assert row["model_sha256"] == segmenter.sha256
    assert "broken" in (out / "errors.csv").read_text()
    assert len(contents(out)) == 4 * 3 + 3  # and table, errors, manifest


class Stop(BaseException):
    pass


@pytest.mark.parametrize("after", [1, 2, 3, 4])
@pytest.mark.parametrize("torn", [False, True])
def test_a_stopped_run_ends_in_the_same_bytes(segmenter, farm, tmp_path, after, torn):
    whole, out = tmp_path / "whole", tmp_path / "out"
    predict_folder(segmenter, farm, whole)

    def stop(progress):
        if progress.done == after:
            raise Stop

    with pytest.raises(Stop):
        predict_folder(segmenter, farm, out, progress=stop)
    if torn:
        with (out / "manifest.jsonl").open("ab") as file:
            file.write(b'{"photo": "b/2.p')
    report = predict_folder(segmenter, farm, out)
    assert report.num_skipped == min(after, 3)
    assert contents(out) == contents(whole)
    again = predict_folder(segmenter, farm, out)
    assert (again.num_segmented, again.num_skipped) == (0, 4)
    assert contents(out) == contents(whole)


def test_a_run_killed_while_writing_ends_in_the_same_bytes(segmenter, farm, tmp_path, monkeypatch):
    whole, out = tmp_path / "whole", tmp_path / "out"
    predict_folder(segmenter, farm, whole)
    for allowed in range(9):
        shutil.rmtree(out, ignore_errors=True)
        left = [allowed]

        def write(path, array, left=left):
            if not left[0]:
                raise Stop
            left[0] -= 1
            write_png(path, array)

        monkeypatch.setattr(predict_module, "write_png", write)
        if allowed < 8:
            with pytest.raises(Stop):
                predict_folder(segmenter, farm, out)
        monkeypatch.setattr(predict_module, "write_png", write_png)
        predict_folder(segmenter, farm, out)
        assert contents(out) == contents(whole)


def test_what_changed_is_done_again(segmenter, make_colour_model, farm, tmp_path):
    out = tmp_path / "out"
    predict_folder(segmenter, farm, out)
    (out / "a/1_classes.png").unlink()
    assert predict_folder(segmenter, farm, out).num_segmented == 1
    (out / "a/1_classes.png").write_bytes(b"cut short")
    assert predict_folder(segmenter, farm, out).num_segmented == 1
    os.utime(farm / "b/2.png", ns=(1, 1))
    assert predict_folder(segmenter, farm, out).num_segmented == 1
    assert predict_folder(segmenter, farm, out, overlay=False).num_segmented == 4
    other = Segmenter(make_colour_model(temperature=2.0), threads=1)
    assert predict_folder(other, farm, out).num_segmented == 4
    shas = [r["model_sha256"] for r in table_rows(out / "coverage.csv")]
    assert shas == [other.sha256] * 4


def test_a_repaired_photo_leaves_the_list_of_errors(segmenter, farm, tmp_path, field_photo):
    out = tmp_path / "out"
    predict_folder(segmenter, farm, out)
    (farm / "b/broken.jpg").unlink()
    write_png(farm / "b/broken.png", field_photo(20, 20))
    assert predict_folder(segmenter, farm, out).errors == {}
    assert not (out / "errors.csv").exists()


def test_another_input_keeps_the_rows_of_the_first(segmenter, farm, tmp_path):
    out = tmp_path / "out"
    predict_folder(segmenter, farm / "a", out)
    predict_folder(segmenter, farm / "b" / "2.png", out)
    rows = [r["photo"] for r in table_rows(out / "coverage.csv")]
    assert rows == ["1.png", "2.png"]


@pytest.mark.parametrize("line", [b"[]", b"{}", b"\xff", b"null", b"[" * 5000, b'{"photo": 1}'])
def test_an_odd_manifest_is_started_anew(segmenter, farm, tmp_path, line):
    out = tmp_path / "out"
    out.mkdir()
    (out / "manifest.jsonl").write_bytes(line + b"\n")
    assert predict_folder(segmenter, farm, out).num_segmented == 4


def names(found):
    return {p.name: p.output for p in found}


def test_globs_and_lists_keep_the_folders(farm, tmp_path):
    out = tmp_path / "out"
    assert names(find_photos(f"{farm}/*/1.png", out)) == {"a/1.png": "a/1", "b/1.png": "b/1"}
    assert list(names(find_photos(f"{farm}/b/[12].png", out))) == ["1.png", "2.png"]
    assert len(find_photos(f"{farm}/**/*.png", out)) == 4
    assert len(find_photos(f"{farm}/*", out)) == 5
    both = find_photos([farm / "a" / "1.png", farm / "b" / "2.png"], out)
    assert names(both) == {"1.png": "1", "2.png": "2"}
    with pytest.raises(ImageError, match=r"two photos named 1\.png"):
        find_photos([farm / "a", farm / "b"], out)
    twice = find_photos([farm / "a", farm / "a" / "1.png"], out)
    assert len(twice) == 1


def test_same_stems_get_names_of_their_own(tmp_path, field_photo):
    for name in ("x.png", "X.PNG.png", "x.jpg", "x.jpg.png", "y.png"):
        write_png(tmp_path / "in" / name, field_photo(4, 4))
    found = names(find_photos(tmp_path / "in", tmp_path / "out"))
    assert len({output.casefold() for output in found.values()}) == len(found) == 5
    assert found["y.png"] == "y"


def test_results_among_the_photos_are_no_photos(segmenter, tmp_path, field_photo):
    write_png(tmp_path / "x.png", field_photo(9, 9))
    for out in (tmp_path, tmp_path / "inner"):
        first = predict_folder(segmenter, tmp_path, out)
        again = predict_folder(segmenter, tmp_path, out)
        assert (first.num_segmented, again.num_skipped, again.num_segmented) == (1, 1, 0)
        shutil.rmtree(tmp_path / "inner", ignore_errors=True)
        for path in (*tmp_path.glob("x_*"), *tmp_path.glob("*.csv"), *tmp_path.glob("*.jsonl")):
            path.unlink()


@pytest.mark.parametrize("name", ["missing", "empty", "missing/*.jpg", "notes.txt"])
def test_nothing_to_do_is_a_sentence(segmenter, tmp_path, name):
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").write_text("no photo")
    with pytest.raises(ImageError):
        predict_folder(segmenter, tmp_path / name, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_output_folder_that_cannot_be_made(segmenter, farm):
    with pytest.raises(OutputError, match="choose another --out"):
        predict_folder(segmenter, farm, farm / "notes.txt")


def test_file_names_of_odd_bytes(segmenter, tmp_path, field_photo):
    source = os.fsencode(tmp_path / "in") + b"/caf\xe9.png"
    write_png(tmp_path / "in" / "plain.png", field_photo(6, 6))
    os.rename(tmp_path / "in" / "plain.png", source)
    with open(os.fsencode(tmp_path / "in") + b"/\xe9.jpg", "wb") as file:
        file.write(b"broken")
    report = predict_folder(segmenter, tmp_path / "in", tmp_path / "out")
    assert (report.num_segmented, len(report.errors)) == (1, 1)


def test_photos_beyond_jpeg_are_listed(segmenter, tmp_path):
    write_png(tmp_path / "in" / "long.png", np.zeros((1, 65_501, 3), np.uint8))
    write_png(tmp_path / "in" / "fine.png", np.zeros((1, 300, 3), np.uint8))
    report = predict_folder(segmenter, tmp_path / "in", tmp_path / "out")
    assert list(report.errors) == ["long.png"]
    assert report.num_segmented == 1


def test_at_most_two_photos_are_decoded_ahead(segmenter, tmp_path, field_photo, monkeypatch):
    for number in range(8):
        write_png(tmp_path / "in" / f"{number}.png", field_photo(8, 8))
    read = []
    monkeypatch.setattr(predict_module, "read_image", lambda p: read.append(p) or read_image(p))
    ahead = []
    predict_folder(
        segmenter,
        tmp_path / "in",
        tmp_path / "out",
        progress=lambda p: ahead.append(len(read) - p.done),
    )
    assert max(ahead) <= 1


def test_overlay_shows_plants_and_leaves_soil():
    image = np.full((2, 3, 3), 100, np.uint8)
    class_map = np.array([[0, 1, 2]] * 2, np.uint8)
    drawn = draw_overlay(image, class_map, DEFAULT_CLASSES)
    np.testing.assert_array_equal(drawn[:, 0], image[:, 0])
    assert (drawn[:, 1, 1] > 150).all()
    assert (drawn[:, 2, 0] > 150).all()
    assert DEFAULT_CLASSES.ids_of(Role.WEED) == (2,)


def test_a_missing_released_model_is_a_sentence():
    with pytest.raises(ModelFileError, match="name a model with --model"):
        default_model("no-such-model")


def test_memory_stays_flat(segmenter, tmp_path, field_photo):
    """Python's own allocations, arrays included, do not grow with the number of photos."""
    import tracemalloc

    photo = cv2.resize(field_photo(90, 90), (300, 300))
    for number in range(24):
        write_png(tmp_path / "in" / f"{number:02}.png", photo)
    peaks = []

    def note(progress):
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.reset_peak()

    tracemalloc.start()
    try:
        predict_folder(segmenter, tmp_path / "in", tmp_path / "out", progress=note)
    finally:
        tracemalloc.stop()
    assert max(peaks[12:]) < max(peaks[2:12]) + photo.nbytes
