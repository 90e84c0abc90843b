"""The report is one self-contained page, built from whatever a run folder holds."""

from __future__ import annotations

import csv
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest

from weedseg.classes import DEFAULT_CLASSES
from weedseg.config import Recipe
from weedseg.errors import OutputError
from weedseg.evaluation import plots
from weedseg.evaluation.baselines import ColourThreshold, score_baselines
from weedseg.evaluation.confusion import RoleScores
from weedseg.evaluation.pictures import reconstruction_grid, result_panels
from weedseg.evaluation.scores import Evaluation, untested
from weedseg.imaging import write_png
from weedseg.pipeline.report import MAX_PICTURES, render_report, write_report
from weedseg.pipeline.report_split import describe_split, split_rows
from weedseg.pipeline.report_words import duration, interval, percent, points, weed_cover_error

HOSTILE = "a/<script>alert(1)</script>\"'&.jpg"
NAMES = [HOSTILE, *(f"north/2026-05-0{i}/photo {i}.jpg" for i in range(1, 7))]
SPLIT = {
    "kind": "holdout",
    "basis": "within-field",
    "within_field": True,
    "note": "",
    "train": [f"train/{i}.jpg" for i in range(20)],
    "val": [f"val/{i}.jpg" for i in range(6)],
    "test": NAMES,
    "folds": [],
    "unlabelled": [f"all/{i}.jpg" for i in range(300)],
}


class Page(HTMLParser):
    """Collect tags, links and text, and check that tags are closed in order."""

    VOID = ("meta", "img", "br")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.text = ""
        self.ids: list[str] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in self.VOID:
            self.open.append(tag)
        for key, value in attrs:
            assert not key.startswith("on"), key
            if key in ("src", "href", "srcset", "action", "data"):
                self.links.append(value or "")
            if key == "id":
                self.ids.append(value or "")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += " " + " ".join(data.split())


def field_photo(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """A made-up photo, mask, class map and confidence."""
    rng = np.random.default_rng(seed)
    mask = np.zeros((72, 96), np.uint8)
    for number in range(9):
        centre = (int(rng.integers(96)), int(rng.integers(72)))
        cv2.circle(mask, centre, int(rng.integers(3, 9)), 1 + number % 2, -1)
    colours = np.array([[120, 95, 70], [60, 140, 50], [120, 165, 60]])
    image = np.clip(colours[mask] + rng.normal(0, 14, (72, 96, 3)), 0, 255).astype(np.uint8)
    class_map = cv2.warpAffine(mask, np.float32([[1, 0, 2], [0, 1, 1]]), (96, 72), flags=0)
    confidence = np.where(class_map == mask, 96, 60) - rng.integers(0, 8, mask.shape)
    return image, mask, class_map, confidence.astype(np.uint8)


def write_json(path: Path, values: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(values), encoding="utf-8")


def write_lines(path: Path, rows: list[dict]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def fabricate_run(run: Path) -> Path:
    """Write a whole run folder, without training."""
    evaluation = Evaluation(DEFAULT_CLASSES)
    for number, name in enumerate(NAMES):
        image, mask, class_map, confidence = field_photo(number)
        evaluation.add(name, mask, class_map, confidence)
        panels = result_panels(image, mask, class_map, confidence, DEFAULT_CLASSES)
        write_png(run / "evaluation" / "pictures" / f"{number:02d}-photo.png", panels)
    tiles = np.stack([field_photo(i)[0][:64, :64] for i in range(3)])
    cells = np.random.default_rng(0).random((3, 4, 4)) < 0.5
    hidden = cells.repeat(16, axis=1).repeat(16, axis=2)
    drawn = np.stack([cv2.GaussianBlur(tile, (9, 9), 3) for tile in tiles])
    write_png(
        run / "pretrain" / "pictures" / "stage-05-of-05.png",
        reconstruction_grid(tiles, hidden, drawn),
    )
    baselines = {"colour_threshold": field_baseline()}
    write_json(
        run / "evaluation.json", evaluation.to_dict(SPLIT, "within-field", baselines=baselines)
    )
    write_json(run / "split.json", SPLIT)
    write_json(run / "recipe.json", Recipe().to_dict())
    write_json(
        run / "run.json",
        {
            "weedseg": "0.1.0",
            "torch": "2.15.0",
            "seed": 0,
            "device": "cpu",
            "started": "2026-05-07T10:00:00",
            "seconds": {"pretrain": 1250.4, "finetune": 433.0},
            "plan": {"pretrain_steps": 400, "finetune_steps": 200},
            "scored_share": 0.8,
            "scoring_time_share": 0.055,
            "fingerprint": "9f" * 32,
        },
    )
    pretraining = [
        {"step": i * 10, "loss": 0.2 + 0.8 * 0.9**i, "hidden_l1": 0.25 * 0.95**i, "stage": i // 10}
        for i in range(1, 41)
    ]
    write_lines(run / "pretrain" / "metrics.jsonl", pretraining)
    finetuning = [{"step": i * 10, "loss": 1.4 * 0.85**i, "lr": 1e-3} for i in range(1, 21)]
    for row in finetuning[1::2]:
        row |= {"val_weed_iou": 0.7 * (1 - 0.9 ** row["step"]), "val_miou": 0.6 + row["step"] / 1e3}
    write_lines(run / "finetune" / "metrics.jsonl", finetuning)
    return run


def field_baseline() -> RoleScores:
    photos = [field_photo(i) for i in range(2)]
    images, masks = [p[0] for p in photos], [p[1] for p in photos]
    colours = ColourThreshold.fit(images, masks)
    return score_baselines(images, masks, DEFAULT_CLASSES, colours)["colour_threshold"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fabricate_run(tmp_path_factory.mktemp("runs") / "north field")


@pytest.fixture(autouse=True)
def _quick_figures(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures take most of the time and have tests of their own; the first test draws them."""
    if "nothing_is_fetched" not in request.node.name:
        monkeypatch.setattr(plots, "_data_uri", lambda figure: "data:image/svg+xml;base64,")


def test_every_section_is_there_and_nothing_is_fetched(run: Path) -> None:
    path = write_report(run)
    assert path == run / "report.html"
    text = path.read_text(encoding="utf-8")
    page = Page(text)
    assert not page.open
    assert page.ids == ["summary", "sees", "accuracy", "coverage", "training", "data", "made"]
    assert page.links
    assert all(link.startswith("data:image/") for link in page.links)
    assert not re.search(r"https?:|//[a-z]|@import|url\(", re.sub(r"base64,[\w+/=]+", "", text))
    assert "default-src 'none'" in text
    assert not {"script", "link", "iframe", "object", "base", "form"} & set(page.tags)


def test_numbers_labels_and_words(run: Path) -> None:
    page = Page(render_report(run))
    values = json.loads((run / "evaluation.json").read_text())
    for name in ("background", "crop", "weed"):
        assert percent(values["iou"][name]) in page.text
        assert interval(values["intervals"]["recall"][name]) in page.text
    assert page.text.count("within-field") >= 10
    assert "Weed IoU within-field" in page.text
    assert "no test photo was among them" in page.text
    assert "20 min 50 s" in page.text
    assert "80.0 %" in page.text
    assert "colour threshold" in page.text
    assert "pretrain.hidden_share" in page.text
    assert "None" not in page.text
    assert "nan" not in page.text.split()


def test_random_masking_has_no_stages_and_scores_nothing(run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    pictures = copy / "pretrain" / "pictures"
    (pictures / "stage-05-of-05.png").rename(pictures / "stage-01-of-01.png")
    about = json.loads((copy / "run.json").read_text())
    del about["scored_share"], about["scoring_time_share"]
    write_json(copy / "run.json", about)
    before, after = Page(render_report(run)).text, Page(render_report(copy)).text
    for words in ("after stage 5 of 5", "photos whose patches were scored", "time spent scoring"):
        assert words in before
        assert words not in after
    assert "at the end" in after


def test_hostile_names_are_text(run: Path) -> None:
    text = render_report(run)
    assert "<script" not in text
    assert HOSTILE in Page(text).text


@pytest.mark.parametrize(
    ("missing", "section"),
    [
        (["evaluation.json"], "accuracy"),
        (["split.json", "evaluation.json"], "data"),
        (["pretrain/metrics.jsonl", "finetune/metrics.jsonl"], "training"),
        (["recipe.json", "run.json"], "made"),
    ],
)
@pytest.mark.parametrize("broken", [False, True])
def test_missing_and_broken_files_leave_their_section_out(
    run: Path, tmp_path: Path, missing: list[str], section: str, broken: bool
) -> None:
    copy = tmp_path / "run"
    for path in run.rglob("*"):
        name = path.relative_to(run).as_posix()
        if path.is_file() and name != "report.html" and name not in missing:
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            (copy / name).write_bytes(path.read_bytes())
    if broken:
        for name in missing:
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            (copy / name).write_bytes(b'{"schema": \xff\x00 [')
    ids = Page(render_report(copy)).ids
    assert section not in ids
    assert "summary" in ids


def test_empty_run(tmp_path: Path) -> None:
    page = Page(render_report(tmp_path))
    assert page.ids == ["summary"]
    assert "Accuracy unknown" in page.text
    with pytest.raises(OutputError, match="run folder"):
        write_report(tmp_path / "nowhere")


def test_untested_model(tmp_path: Path) -> None:
    split = {"kind": "untested", "basis": "within-field", "train": ["a.jpg"], "unlabelled": ["b"]}
    write_json(tmp_path / "evaluation.json", untested(DEFAULT_CLASSES, split))
    write_json(tmp_path / "split.json", split)
    page = Page(render_report(tmp_path))
    assert "Accuracy unknown" in page.text
    assert "1 photo with labels" in page.text
    assert page.ids == ["summary", "data"]


def test_a_model_that_finds_no_weed_is_not_to_be_relied_on(tmp_path: Path) -> None:
    evaluation = Evaluation(DEFAULT_CLASSES)
    mask = np.zeros((8, 8), np.uint8)
    mask[2:4] = 2
    evaluation.add("a.jpg", mask, np.zeros_like(mask), np.full((8, 8), 99, np.uint8))
    write_json(tmp_path / "evaluation.json", evaluation.to_dict())
    page = Page(render_report(tmp_path))
    assert "the model finds no weed: do not rely on it" in page.text
    assert "is weed;" not in page.text


def test_nulls_are_written_as_words(tmp_path: Path) -> None:
    evaluation = Evaluation(DEFAULT_CLASSES)
    sure, clean = np.full((8, 8), 99, np.uint8), np.zeros((8, 8), np.uint8)
    evaluation.add("clean.jpg", clean, clean, sure)
    evaluation.add("ignored.jpg", clean + 255, clean, sure)
    write_json(tmp_path / "evaluation.json", evaluation.to_dict())
    page = Page(render_report(tmp_path))
    assert "No test photo shows a weed" in page.text
    assert "n/a" in page.text
    assert "within-field" not in page.text
    assert "1 photo without a weed" in page.text


def test_without_labels_shows_what_to_label_first(tmp_path: Path) -> None:
    run, outside = tmp_path / "run", tmp_path / "secret.png"
    write_png(run / "label_first" / "1.png", field_photo(0)[0])
    write_png(outside, field_photo(1)[0])
    with (run / "label_first.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["rank", "photo", "hidden_error", "thumbnail"])
        writer.writerow([1, HOSTILE, 0.21, "label_first/1.png"])
        writer.writerow([2, "b.jpg", 0.2, "../secret.png"])
        writer.writerow([3, "c.jpg", 0.19, "label_first/missing.png"])
    write_json(run / "split.json", {"kind": "unlabelled", "unlabelled": ["b.jpg"]})
    page = Page(render_report(run))
    assert page.ids == ["summary", "label-first", "data"]
    assert len(page.links) == 1
    assert HOSTILE in page.text
    assert "0.19" in page.text
    assert "No photo is labelled yet" in page.text
    assert "Accuracy unknown" not in page.text


def test_only_so_many_pictures(tmp_path: Path) -> None:
    for number in range(MAX_PICTURES + 3):
        write_png(
            tmp_path / "evaluation/pictures" / f"{number:02d}.png", np.zeros((2, 2), np.uint8)
        )
    assert len(Page(render_report(tmp_path)).links) == MAX_PICTURES


def test_large_and_broken_pictures(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (300, 300, 3)).astype(np.uint8)
    write_png(tmp_path / "evaluation/pictures/1.png", noise)
    (tmp_path / "evaluation/pictures/2.png").write_bytes(b"\x89PNG" + bytes(300_000))
    [link] = Page(render_report(tmp_path)).links
    assert link.startswith("data:image/jpeg;base64,")
    assert len(link) < (tmp_path / "evaluation/pictures/1.png").stat().st_size


def test_cross_validation_words() -> None:
    split = {
        "kind": "cross-validation",
        "basis": "date",
        "within_field": False,
        "train": ["a", "b", "c"],
        "folds": [["a"], ["b"], ["c"]],
        "unlabelled": ["a", "b", "c", "d"],
    }
    text = " ".join(describe_split(split))
    assert "out-of-fold" in text
    assert "3 folds" in text
    assert "Whole visits were kept apart" in text
    assert "the photos that test the model were among them" in text
    assert [row["name"] for row in split_rows(split)][1:4] == ["Fold 1", "Fold 2", "Fold 3"]
    assert "no pretraining" in " ".join(describe_split(split, pretrained=False))
    assert "also practised on 4 photos" in " ".join(describe_split(split, num_practice=4))
    assert "practised" not in text
    assert describe_split({}) == []
    assert split_rows({}) == []


def test_number_words() -> None:
    assert percent(0.1234) == "12.3 %"
    assert percent(None) == percent(float("nan")) == "n/a"
    assert interval([0.1, 0.25]) == "10.0 to 25.0 %"
    assert interval(None) == ""
    assert points(-0.012, signed=True) == "-1.20 points"
    assert [duration(s) for s in (3.21, 45, 65, 3725, None)] == [
        "3.2 s",
        "45 s",
        "1 min 5 s",
        "1 h 2 min",
        "n/a",
    ]


def test_weed_cover_error_merges_species() -> None:
    evaluation = {
        "classes": [{"name": n, "role": r} for n, r in (("a", "weed"), ("b", "weed"))],
        "photos": [
            {"true_coverage": {"a": 0.1, "b": 0.0}, "predicted_coverage": {"a": 0.0, "b": 0.1}},
            {"true_coverage": None, "predicted_coverage": None},
        ],
    }
    assert weed_cover_error(evaluation) == pytest.approx(0.0)
