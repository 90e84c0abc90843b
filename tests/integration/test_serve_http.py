"""The service as programs see it: a real server, real requests."""

import json
import re
import shutil
import time

import cv2
import httpx
import numpy as np
import pytest
from serving import GOLDEN, ROOT, Server

from weedseg.data.rle import from_coco
from weedseg.edge import Segmenter
from weedseg.edge.predict import draw_overlay
from weedseg.imaging import decode_image, read_image

PHOTO = (GOLDEN / "in.png").read_bytes()
LIMIT = 2 << 20
PATIENCE_S = 2


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("serve")
    with Server(folder / "data", max_photo_bytes=LIMIT, models=ROOT / "models") as running:
        yield running


@pytest.fixture
def client(server):
    with server.client() as opened:
        yield opened


@pytest.fixture(scope="module")
def segmenter():
    return Segmenter(ROOT / "models" / "peanut-lite0" / "model.onnx", threads=1)


@pytest.fixture(scope="module")
def expected(segmenter):
    return segmenter.segment(read_image(GOLDEN / "in.png"))


# --- one photo ---------------------------------------------------------------------------------


def test_the_index_picture_is_what_the_edge_runtime_says(client, expected):
    answer = client.post("/v1/predict", content=PHOTO, headers={"Accept": "image/png"})
    assert (answer.status_code, answer.headers["content-type"]) == (200, "image/png")
    pixels = cv2.imdecode(np.frombuffer(answer.content, np.uint8), cv2.IMREAD_UNCHANGED)
    assert pixels.ndim == 2
    assert np.array_equal(pixels, expected.class_map)


def test_json_holds_areas_cover_and_run_lengths(client, expected, segmenter):
    answer = client.post(
        "/v1/predict", files={"file": ("../plot 7.png", PHOTO)}, params={"mm_per_px": 2}
    )
    told = answer.json()
    height, width = expected.class_map.shape
    assert (told["photo"], told["height"], told["width"]) == ("plot 7.png", height, width)
    assert told["model"]["sha256"] == segmenter.sha256
    for row in told["classes"]:
        where = expected.class_map == row["id"]
        assert row["area_px"] == where.sum()
        assert row["coverage"] == pytest.approx(expected.coverage[row["name"]], abs=1e-8)
        assert row["area_m2"] == pytest.approx(where.sum() * 4e-6, abs=1e-6)
        assert np.array_equal(from_coco(row["rle"]["counts"], (height, width)), where)
    weed = next(row for row in told["classes"] if row["role"] == "weed")
    assert sum(patch["area_px"] for patch in told["patches"]) == weed["area_px"]
    assert told["confidence"] == pytest.approx(expected.confidence.mean() / 100, abs=1e-4)
    assert told["evaluated"] is True
    assert "never on yours" in told["evaluation_note"]


def test_overlay_and_confidence_pictures(client, expected, segmenter):
    drawn = draw_overlay(decode_image(PHOTO, "in"), expected.class_map, segmenter.classes)
    for picture, wanted in (("overlay", drawn), ("confidence", expected.confidence)):
        answer = client.post(
            "/v1/predict",
            content=PHOTO,
            params={"picture": picture},
            headers={"Accept": "image/png"},
        )
        found = cv2.imdecode(np.frombuffer(answer.content, np.uint8), cv2.IMREAD_UNCHANGED)
        assert np.array_equal(found if found.ndim == 2 else found[..., ::-1], wanted)
    jpeg = client.post("/v1/predict", content=PHOTO, headers={"Accept": "image/jpeg"})
    near = decode_image(jpeg.content, "overlay").astype(int) - drawn
    assert np.abs(near).mean() < 8


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("*/*", "application/json"),
        ("image/*", "image/png"),
        ("image/png;q=0.2, application/json;q=0.9", "application/json"),
        ("text/html, image/jpeg", "image/jpeg"),
        ("text/html", "application/problem+json"),
        ("application/json;q=0", "application/problem+json"),
    ],
)
def test_content_is_negotiated(client, accept, kind):
    answer = client.post("/v1/predict", content=PHOTO, headers={"Accept": accept})
    assert answer.headers["content-type"] == kind
    assert answer.status_code == (406 if "problem" in kind else 200)


def test_an_unknown_model_is_404_before_the_photo_is_decoded(client):
    answer = client.post("/v1/predict", content=b"no photo", params={"model": "none"})
    assert answer.status_code == 404


# --- problems ----------------------------------------------------------------------------------


def test_problems_have_a_request_id_and_nothing_internal(client, server):
    mine = "test-request-0001"
    for path, data in (("/v1/predict", b"hello"), ("/v1/predict", PHOTO[:5000]), ("/none", b"")):
        answer = client.post(path, content=data, headers={"X-Request-Id": mine})
        told = answer.json()
        assert answer.headers["content-type"] == "application/problem+json"
        assert told["status"] == answer.status_code >= 400
        assert told["request_id"] == answer.headers["x-request-id"] == mine
        assert not re.search(r"Traceback|\.py|/work|/tmp|weedseg\.", answer.text)
    end = time.monotonic() + 10  # a line is written after its answer
    while (lines := server.text().count(mine)) < 3 and time.monotonic() < end:
        time.sleep(0.05)
    assert lines >= 3
    odd = client.get("/healthz", headers={"X-Request-Id": "a b!"})
    assert odd.headers["x-request-id"] != "a b!"


def test_a_form_without_the_field_is_422(client):
    answer = client.post("/v1/predict", files={"photo": ("a.png", PHOTO)})
    assert answer.status_code == 422
    answer = client.post(
        "/v1/predict", content=b"--x", headers={"Content-Type": "multipart/form-data; boundary=y"}
    )
    assert 400 <= answer.status_code < 500


# --- limits on bodies --------------------------------------------------------------------------


def _padded(num_bytes):
    """The golden photo, filled up behind its end."""
    return PHOTO + b"\0" * (num_bytes - len(PHOTO))


@pytest.mark.parametrize(("num_bytes", "code"), [(LIMIT - 1, 200), (LIMIT, 200), (LIMIT + 1, 413)])
@pytest.mark.parametrize("how", ["raw", "form", "chunked"])
def test_body_limit(client, num_bytes, code, how):
    data = _padded(num_bytes)
    if how == "form":
        answer = client.post("/v1/predict", files={"file": ("a.png", data)})
    else:
        pieces = (data[i : i + 65536] for i in range(0, num_bytes, 65536))
        answer = client.post("/v1/predict", content=pieces if how == "chunked" else data)
    assert answer.status_code == code
    assert client.get("/healthz").status_code == 200


def test_far_too_large_bodies_are_refused_and_the_next_request_is_fine(client, server):
    for how in ("announced", "chunked"):
        data = b"x" * (3 * LIMIT)
        try:
            content = iter([data]) if how == "chunked" else data
            assert client.post("/v1/predict", content=content).status_code == 413
        except httpx.WriteError:  # the answer came before all was sent
            pass
        assert client.post("/v1/predict", content=PHOTO).status_code == 200
    announced = (
        f"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: {10 * LIMIT}\r\n\r\n"
    )
    with server.connect() as sock:
        sock.sendall(announced.encode())
        assert b" 413 " in sock.recv(4096).splitlines()[0]
    assert client.post("/v1/models/default/rollback", content=b"x" * (2 << 20)).status_code == 413


def test_a_lying_content_length_harms_nobody(client, server):
    head = b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: "
    with server.connect() as sock:  # less than announced: the client goes
        sock.sendall(head + b"100000\r\n\r\n" + PHOTO[:500])
    with server.connect() as sock:  # more than announced: the rest is not taken for the photo
        sock.sendall(head + b"500\r\n\r\n" + PHOTO)
        assert b" 422 " in sock.recv(4096).splitlines()[0]
    assert client.post("/v1/predict", content=PHOTO).status_code == 200


# --- Open Inference Protocol -------------------------------------------------------------------


def test_open_inference_protocol(client, segmenter):
    name = client.get("/v1/models").json()["default"]
    assert client.get("/v2").json()["name"] == "weedseg"
    assert client.get("/v2/health/live").json() == {"live": True}
    assert client.get("/v2/health/ready").json() == {"ready": True}
    assert client.get(f"/v2/models/{name}/ready").json() == {"name": name, "ready": True}
    told = client.get(f"/v2/models/{name}").json()
    side = segmenter.metadata.tile_px
    assert told["inputs"] == [{"name": "images", "datatype": "FP32", "shape": [-1, 3, side, side]}]
    tile = cv2.resize(read_image(GOLDEN / "in.png"), (side, side)).transpose(2, 0, 1)[None]
    tensor = (tile / 255).astype(np.float32).round(3)
    asked = {
        "id": "7",
        "inputs": [
            {
                "name": "images",
                "datatype": "FP32",
                "shape": list(tensor.shape),
                "data": [float(f"{v:.3f}") for v in tensor.ravel()],
            }
        ],
        "outputs": [{"name": "mask"}, {"name": "confidence"}],
    }
    answer = client.post(f"/v2/models/{name}/infer", json=asked)
    told = answer.json()
    assert (answer.status_code, told["id"], told["model_name"]) == (200, "7", name)
    exact = np.array(asked["inputs"][0]["data"], np.float32).reshape(tensor.shape)
    for output, wanted in zip(told["outputs"], segmenter.run_tiles(exact)):
        assert output["datatype"] == "UINT8"
        assert np.array_equal(np.reshape(output["data"], output["shape"]), wanted)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"name": "pixels"}, "name"),
        ({"datatype": "INT8"}, "datatype"),
        ({"shape": [1, 3, 8, 8]}, "shape"),
        ({"shape": [0, 3, 512, 512]}, "shape"),
        ({"data": [1.0, 2.0]}, "2 values"),
        ({"data": ["x"]}, "not all numbers"),
        ({"data": [[1], [1, 2]]}, "not all numbers"),
        ({"shape": "x"}, "shape"),
    ],
)
def test_inference_errors_are_those_of_the_protocol(client, change, word):
    tensor = {"name": "images", "datatype": "FP32", "shape": [1, 3, 512, 512], "data": []} | change
    answer = client.post("/v2/models/peanut-lite0/infer", json={"inputs": [tensor]})
    assert answer.status_code == 400
    assert list(answer.json()) == ["error"]
    assert word in answer.json()["error"]


def test_inference_of_nothing_is_an_error_of_the_protocol(client):
    for content in (b"", b"{", b"[]", b"NaN", b"[" * 100_000, b'{"inputs": []}', b"\xff"):
        answer = client.post("/v2/models/peanut-lite0/infer", content=content)
        assert (answer.status_code, list(answer.json())) == (400, ["error"])
    for path in ("/v2/models/none", "/v2/models/none/ready", "/v2/nothing"):
        answer = client.get(path)
        assert (answer.status_code, list(answer.json())) == (404, ["error"])
    answer = client.get("/v2/models/peanut-lite0/infer")
    assert (answer.status_code, list(answer.json())) == (405, ["error"])


# --- figures and description -------------------------------------------------------------------


def test_metrics_have_the_promised_names(client):
    client.post("/v1/predict", content=PHOTO)
    client.get("/never/heard/of")
    text = client.get("/metrics").text
    for line in (
        r'weedseg_requests_total\{code="200",endpoint="/v1/predict"\} [1-9]',
        r'weedseg_requests_total\{code="404",endpoint="other"\} [1-9]',
        r'weedseg_request_duration_seconds_count\{endpoint="/v1/predict"\} [1-9]',
        r'weedseg_stage_duration_seconds_count\{stage="decode"\} [1-9]',
        r'weedseg_stage_duration_seconds_count\{stage="infer"\} [1-9]',
        r'weedseg_stage_duration_seconds_count\{stage="encode"\} [1-9]',
        r"weedseg_queue_depth 0\.0",
        r"weedseg_inflight 1\.0",
        r'weedseg_model_info\{model="peanut-lite0",precision="fp32",provider="cpu",version="\w+"',
        r'weedseg_jobs\{status="\w+"\} 0',
        r"weedseg_jobs_waiting 0\.0",
    ):
        assert re.search(line, text), line


def test_the_description_has_every_route_and_no_outside_page(client):
    document = client.get("/openapi.json").json()
    assert {"/v1/predict", "/v2/models/{name}/infer", "/v1/models", "/readyz"} <= set(
        document["paths"]
    )
    text = json.dumps(document)
    for name in re.findall(r"#/components/schemas/(\w+)", text):
        assert name in document["components"]["schemas"]
    assert "0001.jpg" in text
    assert client.get("/docs").status_code == client.get("/redoc").status_code == 404


# --- slow clients ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def impatient(tmp_path_factory):
    folder = tmp_path_factory.mktemp("impatient")
    with Server(folder / "data", header_timeout_s=PATIENCE_S) as running:
        yield running


def test_slow_clients_are_sent_away_and_hold_nobody_up(impatient):
    socks = [impatient.connect() for _ in range(200)]
    for number, sock in enumerate(socks):
        sock.sendall(b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\n")
        if number % 2:
            sock.sendall(b"Content-Length: 100000\r\n\r\n" + PHOTO[:100])
    start = time.monotonic()
    codes = []
    with impatient.client() as client:
        while time.monotonic() - start < PATIENCE_S:
            codes.append(client.get("/healthz").status_code)
            codes.append(client.post("/v1/predict", content=PHOTO).status_code)
            time.sleep(0.1)
    assert set(codes) == {200}
    gone = [_is_gone(sock, start + PATIENCE_S + 5) for sock in socks]
    assert all(gone), f"{gone.count(False)} slow clients are still there"


def _is_gone(sock, end):
    """Read until the server closes."""
    with sock:
        while (left := end - time.monotonic()) > 0:
            sock.settimeout(left)
            try:
                if not sock.recv(65536):
                    return True
            except TimeoutError:
                return False
            except ConnectionError:
                return True
    return False


def test_a_body_that_drips_is_given_up(impatient):
    with impatient.connect() as sock:
        sock.sendall(
            b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\n"
        )
        sock.settimeout(0.3)
        start, answer = time.monotonic(), b""
        while not answer and time.monotonic() - start < 10:
            sock.sendall(b"x")
            try:
                answer = sock.recv(4096)
            except TimeoutError:
                continue
        assert b" 408 " in answer.splitlines()[0]


# --- models ------------------------------------------------------------------------------------


def test_promotion_rollback_and_restart(tmp_path):
    folder, released = tmp_path / "models", ROOT / "models" / "peanut-lite0"
    for name in ("bare", "full", "wrong"):
        (folder / name).mkdir(parents=True)
        shutil.copy(released / "model.onnx", folder / name)
    shutil.copytree(released / "golden", folder / "full" / "golden")
    shutil.copytree(released / "golden", folder / "wrong" / "golden")
    (folder / "wrong" / "golden" / "in.png").write_bytes(b"another photo")
    server = Server(tmp_path / "data", models=folder)
    with server, server.client() as client:
        told = client.get("/v1/models").json()
        assert [model["name"] for model in told["models"]] == ["bare", "full", "wrong"]
        assert (told["default"], told["previous"]) == ("bare", None)
        assert client.post("/v1/models/default/rollback").status_code == 409
        assert client.post("/v1/models/none/promote").status_code == 404
        answer = client.post("/v1/models/wrong/promote")
        assert (answer.status_code, client.get("/v1/models").json()["default"]) == (409, "bare")
        answer = client.post("/v1/models/full/promote").json()
        assert (answer["name"], answer["is_default"]) == ("full", True)
        told = client.post("/v1/predict", content=PHOTO).json()
        assert told["model"]["name"] == "full"
        assert 'model="full"' in client.get("/metrics").text
        assert server.stop() == 0
    with server, server.client() as client:
        told = client.get("/v1/models").json()
        assert (told["default"], told["previous"]) == ("full", "bare")
        assert client.post("/v1/models/default/rollback").json()["name"] == "bare"
        assert client.post("/v1/models/default/rollback").status_code == 409


def test_a_photo_may_name_its_model(client):
    answer = client.post("/v1/predict", content=PHOTO, params={"model": "peanut-lite0"})
    assert answer.json()["model"]["name"] == "peanut-lite0"
