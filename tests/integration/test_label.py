"""Pre-labelling: what is suggested, what label tools get, what Label Studio's backend answers."""

import csv
import json
import threading
import time

import httpx
import numpy as np
import pytest
import uvicorn
from colour_model import make_colour_model
from starlette.testclient import TestClient

from weedseg.cli import main
from weedseg.data.importers import collect
from weedseg.data.importers.items import ImportOptions
from weedseg.data.index import Photo, index_farm
from weedseg.data.masks import read_mask
from weedseg.data.writing import write_collection
from weedseg.edge.segmenter import Segmenter
from weedseg.errors import ConfigError, FieldDataError, OutputError
from weedseg.imaging import read_image, write_png
from weedseg.pipeline.suggest import choose, suggest
from weedseg.serve.label_studio import BackendOptions, create_backend

COLOURS = np.array([(110, 80, 50), (40, 190, 30), (210, 30, 40)])
UNSURE = (95, 100, 90)
INTERFACE = """<View>
  <Header value="Paint"/>
  <Image name="photo" value="$image" zoom="true"/>
  <BrushLabels name="paint" toName="photo">
    <Label value="Crop" background="#00ff00"/><Label value="weed: UNSPECIFIED"/>
  </BrushLabels>
</View>"""


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "model.onnx"
    path.write_bytes(make_colour_model())
    return path


@pytest.fixture(scope="module")
def segmenter(model):
    return Segmenter(model, threads=1)


def draw(seed, unsure_share=0.0, size=(70, 90)):
    """Draw a photo of coloured squares; a share of its rows is hard to tell."""
    rng = np.random.default_rng(seed)
    ids = np.kron(rng.integers(0, 3, (10, 10)), np.ones((9, 9), int))[: size[0], : size[1]]
    image = COLOURS[ids] + rng.integers(-20, 21, (*size, 3))
    image[: round(unsure_share * size[0])] = UNSURE
    return np.clip(image, 0, 255).astype(np.uint8)


@pytest.fixture
def farm(tmp_path):
    """Write six photos: one labelled, 1 and 2 alike and unsure, 3 less, 4 sure, 5 bare soil."""
    root = tmp_path / "farm"
    for i, image in enumerate(
        [draw(0), draw(1, 0.8), draw(1, 0.8), draw(3, 0.5), draw(4), np.full((70, 90, 3), 80)]
    ):
        write_png(root / "images" / f"p {i}+.png", np.asarray(image, np.uint8))
    write_png(root / "masks" / "p 0+.png", np.zeros((70, 90), np.uint8))
    return index_farm(root)


def numbers(names):
    return [int(name.rpartition("p ")[2][0]) for name in names]


def back(kind, labels, farm, out, **options):
    write_collection(
        collect(kind, labels, ImportOptions(photos=farm.root, **options)), out / kind, kind
    )
    return index_farm(out / kind)


# --- suggestions ------------------------------------------------------------------------------


def test_every_tool_gives_the_class_maps_back(farm, segmenter, tmp_path):
    chosen, lost = suggest(farm, segmenter, tmp_path / "out", 0)
    assert lost == []
    assert sorted(numbers(s.photo.name for s in chosen)) == [1, 2, 3, 4, 5]
    for kind, options in (("cvat", {}), ("png", {}), ("labelstudio", {"mapping": "predictions"})):
        again = back(kind, tmp_path / "out" / kind, farm, tmp_path, **options)
        labelled = {p.path.name: p for p in again.labelled}
        assert len(labelled) == 5, kind
        for photo in farm.unlabelled:
            class_map = segmenter.segment(read_image(photo.path)).class_map
            np.testing.assert_array_equal(read_mask(again, labelled[photo.path.name]), class_map)
    unreviewed = back("labelstudio", tmp_path / "out/labelstudio", farm, tmp_path / "plain")
    assert len(unreviewed.labelled) == 0
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "cvat", "labelstudio", "png", "suggestions.csv",
    ]  # fmt: skip


def test_uncertain_photos_come_first_and_doubles_last(farm, segmenter, tmp_path):
    chosen, _ = suggest(farm, segmenter, tmp_path / "out", 0)
    order = numbers(s.photo.name for s in chosen)
    assert order[:2] == [1, 3]
    assert order[-1] == 2
    assert chosen[-1].distance == 0
    assert chosen[0].uncertainty == chosen[-1].uncertainty > chosen[1].uncertainty > 0
    tasks = json.loads((tmp_path / "out/labelstudio/tasks.json").read_text())
    said = [task["predictions"][0] for task in tasks]
    assert all(task["annotations"] == [] for task in tasks)
    assert [p["score"] for p in said] == [round(1 - s.uncertainty, 6) for s in chosen]
    assert {p["model_version"] for p in said} == {f"weedseg {segmenter.sha256[:12]}"}
    text = (tmp_path / "out/suggestions.csv").read_text()
    rows = list(csv.DictReader(text.splitlines()))
    assert numbers(row["photo"] for row in rows) == order
    assert [row["rank"] for row in rows] == ["1", "2", "3", "4", "5"]


def test_what_is_labelled_counts_as_known(tmp_path):
    photos = []
    for i, level in enumerate((10, 12, 200, 100)):
        path = tmp_path / f"{i}.png"
        write_png(path, np.full((20, 20, 3), level, np.uint8))
        photos.append(Photo(name=path.name, path=path))
    known = np.full((1, 192), 10 / 255, np.float32)
    scores = dict(zip(photos, (0.5, 0.5, 0.5, 0.5)))
    assert [s.photo.name for s in choose(scores, known, 3)] == ["2.png", "3.png", "1.png"]
    assert [s.photo.name for s in choose(scores, known[:0], 2)] == ["0.png", "2.png"]


def test_photos_that_cannot_be_read_are_named(farm, segmenter, tmp_path):
    farm.unlabelled[0].path.write_bytes(b"no photo")
    chosen, lost = suggest(farm, segmenter, tmp_path / "out", 2)
    assert len(chosen) == 2
    assert len(lost) == 1
    assert "p 1+.png" in lost[0]


def test_what_suggest_refuses(farm, segmenter, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full/notes.txt").write_text("mine")
    with pytest.raises(OutputError, match="is not empty"):
        suggest(farm, segmenter, tmp_path / "full", 1)
    with pytest.raises(OutputError, match="lies in the farm folder"):
        suggest(farm, segmenter, farm.root / "out", 1)
    for photo in farm.unlabelled:
        write_png(farm.root / "masks" / photo.path.name, np.zeros((70, 90), np.uint8))
    with pytest.raises(FieldDataError, match="have masks"):
        suggest(index_farm(farm.root), segmenter, tmp_path / "out", 1)
    assert not (tmp_path / "out").exists()


def test_the_command_line(farm, model, tmp_path, capsys):
    arguments = ["label", "suggest", str(farm.root), "--out", str(tmp_path / "out")]
    assert main([*arguments, "--model", str(model), "--num", "2", "--threads", "1"]) == 0
    assert "2 of 5 unlabelled photos pre-labelled" in capsys.readouterr().out
    assert (tmp_path / "out/cvat/annotations.xml").is_file()
    serving = ["label", "serve", str(farm.root), "--model", str(model), "--host", "0.0.0.0"]
    assert main(serving) == ConfigError.exit_code
    assert "WEEDSEG_LABEL_PASSWORD" in capsys.readouterr().err


# --- Label Studio's backend -------------------------------------------------------------------


def task_of(number, image):
    """A task as Label Studio sends it."""
    return {
        "id": number,
        "data": {"image": image},
        "meta": {},
        "created_at": "2026-05-03T23:45:46.048490Z",
        "updated_at": "2026-05-03T23:45:46.048538Z",
        "is_labeled": False,
        "overlap": 1,
        "inner_id": number,
        "total_annotations": 0,
        "cancelled_annotations": 0,
        "total_predictions": 0,
        "project": 1,
        "annotations": [],
        "predictions": [],
    }


def asked(*images, interface=INTERFACE):
    """A body as Label Studio's connector posts it."""
    return {
        "tasks": [task_of(i, image) for i, image in enumerate(images, 1)],
        "model_version": "weedseg",
        "project": "1.1777852746",
        "label_config": interface,
        "params": {"login": None, "password": None, "context": None},
    }


def local(name):
    from urllib.parse import quote

    return f"/data/local-files/?d={quote(name)}"


@pytest.fixture
def client(farm, segmenter, tmp_path):
    uploads = tmp_path / "media" / "upload"
    write_png(uploads / "3" / "0a1b2c3d-x.png", draw(7))
    app = create_backend(segmenter, BackendOptions(photos=farm.root, uploads=uploads))
    with TestClient(app) as asking:
        yield asking


def test_a_real_server_and_the_way_back(farm, segmenter, tmp_path):
    """Predictions of a running server, put into tasks, come back bit for bit."""
    app = create_backend(segmenter, BackendOptions(photos=farm.root))
    config = uvicorn.Config(app, host="127.0.0.1", port=0, log_level="error", lifespan="off")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            time.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        with httpx.Client(base_url=f"http://127.0.0.1:{port}") as asking:
            assert asking.get("/health").json()["status"] == "UP"
            setup = {
                "project": "1.1777852746",
                "schema": INTERFACE,
                "hostname": "http://localhost:8080",
                "access_token": "secret",
                "extra_params": None,
            }
            version = asking.post("/setup", json=setup).json()["model_version"]
            body = asked(*[local(p.name) for p in farm.photos])
            answer = asking.post("/predict", json=body).json()
            event = {"action": "ANNOTATION_CREATED", "project": {"id": 1}, "annotation": {}}
            assert asking.post("/webhook", json=event).json()["status"] == "ok"
    finally:
        server.should_exit = True
        thread.join()
    assert len(answer["results"]) == len(farm.photos)
    assert answer["model_version"] == version == f"weedseg {segmenter.sha256[:12]}"
    tasks = [task | {"predictions": [said]} for task, said in zip(body["tasks"], answer["results"])]
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels/tasks.json").write_text(json.dumps(tasks))
    again = back("labelstudio", tmp_path / "labels", farm, tmp_path, mapping="predictions")
    names = [c.name for c in again.classes.classes]
    order = {"background": 0, "Crop": 1, "weed": 2}
    table = np.array([order[name] for name in names], np.uint8)
    found = {p.path.name: p for p in again.photos}
    scores = []
    for photo, said in zip(farm.photos, answer["results"]):
        result = segmenter.segment(read_image(photo.path))
        mask = table[read_mask(again, found[photo.path.name])]
        np.testing.assert_array_equal(mask, result.class_map)
        scores.append(said["score"])
        assert said["score"] == pytest.approx(result.confidence.mean() / 100, abs=1e-6)
    assert int(np.argmin(scores)) in (1, 2)


def test_regions_are_those_of_the_project(client, farm):
    said = client.post("/predict", json=asked(local(farm.photos[0].name))).json()["results"][0]
    assert [r["value"]["brushlabels"] for r in said["result"]] == [["Crop"], ["weed: UNSPECIFIED"]]
    for region in said["result"]:
        assert (region["from_name"], region["to_name"]) == ("paint", "photo")
        assert (region["type"], region["value"]["format"]) == ("brushlabels", "rle")
        assert (region["original_width"], region["original_height"]) == (90, 70)
        assert int.from_bytes(bytes(region["value"]["rle"][:4]), "big") == 70 * 90 * 4
    plain = client.post("/predict", json=asked(local(farm.photos[5].name))).json()
    assert plain["results"][0]["result"] == []
    without = asked(local(farm.photos[0].name), interface=None)
    regions = client.post("/predict", json=without).json()["results"][0]["result"]
    assert {r["from_name"] for r in regions} == {"tag"}


@pytest.mark.parametrize(
    "image",
    [
        "/data/upload/3/0a1b2c3d-x.png",
        "http://localhost:8080/data/upload/3/0a1b2c3d-x.png",
    ],
)
def test_uploads_are_found(client, segmenter, image):
    said = client.post("/predict", json=asked(image)).json()["results"][0]
    assert len(said["result"]) == 2
    assert said["score"] == pytest.approx(
        segmenter.segment(draw(7)).confidence.mean() / 100, abs=1e-6
    )


@pytest.mark.parametrize(
    "image",
    [
        "http://example.org/a.png",
        "https://example.org/data/x.png",
        "s3://bucket/a.png",
        "file:///etc/passwd",
        "/etc/passwd",
        "/data/local-files/?d=../../etc/passwd",
        "/data/local-files/?d=%2e%2e/secret.png",
        "/data/local-files/?d=/etc/passwd",
        "/data/local-files/?d=link.png",
        "/data/local-files/?d=missing.png",
        "/data/upload/../secret.png",
        "data:image/png;base64,AAAA",
        "",
    ],
)
def test_nothing_else_is_read(client, farm, tmp_path, image):
    write_png(tmp_path / "secret.png", draw(9))
    (farm.root / "link.png").symlink_to(tmp_path / "secret.png")
    answer = client.post("/predict", json=asked(image))
    assert answer.status_code == 422
    assert "result" not in answer.json()
    assert str(tmp_path) not in answer.text


def test_faults_are_one_sentence(client, farm):
    (farm.root / "images/broken.png").write_bytes(b"no photo")
    broken = client.post("/predict", json=asked(local("images/broken.png")))
    assert broken.status_code == 415
    assert str(farm.root) not in broken.text
    for interface, words in (
        ("<View></View>", "without BrushLabels"),
        ("<View>", "is no XML"),
        ("<!DOCTYPE x [<!ENTITY a 'b'>]><View/>", "document type"),
        (INTERFACE.replace("Crop", "Tree"), "without the label 'crop'"),
    ):
        answer = client.post("/setup", json={"project": "1.1", "schema": interface})
        assert answer.status_code == 422
        assert words in answer.json()["error"]
    for body in ({}, {"tasks": "x"}, {"tasks": [3]}, {"tasks": [{}] * 1001}):
        assert client.post("/predict", json=body).status_code == 422
    assert client.post("/predict", json={"tasks": [{}]}).status_code == 422
    assert client.post("/predict", json={"tasks": [{"data": 3}]}).status_code == 422
    assert client.post("/predict", content=b"x" * (33 << 20)).status_code == 413
    assert client.get("/health").status_code == 200


def test_a_password_is_asked_for(farm, segmenter):
    options = BackendOptions(photos=farm.root, user="us", password="pass word")
    with TestClient(create_backend(segmenter, options)) as client:
        body = asked(local(farm.photos[0].name))
        assert client.get("/health").status_code == 200
        for said in (None, ("us", "x"), ("x", "pass word")):
            answer = client.post("/predict", json=body, auth=said)
            assert answer.status_code == 401
            assert answer.headers["www-authenticate"].startswith("Basic")
        assert client.post("/predict", json=body, auth=("us", "pass word")).status_code == 200


def test_folders_must_be_there(segmenter, tmp_path):
    with pytest.raises(ConfigError, match="is no folder"):
        create_backend(segmenter, BackendOptions(photos=tmp_path / "x"))
