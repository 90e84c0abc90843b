"""Uploads in pieces against a real server: drops, kills, offsets, checksums, owners."""

import base64
import hashlib
import os
import threading
import time

import httpx
import pytest
from job_place import OWNER, Place, kill_all, tus_metadata
from serving import Server
from sqlalchemy import update

from weedseg.serve.problems import Problem
from weedseg.serve.uploads import UNFINISHED_HOURS, Checksum, Upload, clean_name

TUS = {"Tus-Resumable": "1.0.0"}
PIECE = {**TUS, "Content-Type": "application/offset+octet-stream"}
SIZE = 300_000
DATA = os.urandom(SIZE)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("uploads")
    with Server(folder / "data", max_upload_bytes=64 << 20) as running:
        yield running


@pytest.fixture
def client(server):
    with server.client() as made:
        yield made


@pytest.fixture
def place(tmp_path):
    made = Place(tmp_path)
    yield made
    made.close()


def announce(client, size=SIZE, name="plot-7.jpg"):
    headers = {**TUS, "Upload-Length": str(size), "Upload-Metadata": tus_metadata(name)}
    answer = client.post("/v1/uploads", headers=headers)
    assert answer.status_code == 201, answer.text
    return answer.headers["Location"]


def send(client, url, offset, data, **headers):
    return client.patch(
        url, content=data, headers={**PIECE, "Upload-Offset": str(offset), **headers}
    )


def offset_of(client, url):
    answer = client.head(url, headers=TUS)
    assert answer.status_code == 200
    assert answer.headers["Cache-Control"] == "no-store"
    return int(answer.headers["Upload-Offset"])


def stored(server, url):
    (path,) = server.data.glob(f"owners/*/uploads/{url.rpartition('/')[2]}")
    return path.read_bytes()


def test_the_server_says_what_it_speaks(client):
    answer = client.options("/v1/uploads")
    assert answer.status_code == 204
    assert answer.headers["Tus-Version"] == "1.0.0"
    assert answer.headers["Tus-Extension"] == "creation,expiration,termination,checksum"
    assert answer.headers["Tus-Max-Size"] == str(64 << 20)


def test_a_file_in_two_pieces(client, server):
    url = announce(client, name="Feld Süd/plot-7.jpg")
    assert offset_of(client, url) == 0
    answer = send(client, url, 0, DATA[:100_000])
    assert (answer.status_code, answer.headers["Upload-Offset"]) == (204, "100000")
    assert "Upload-Expires" in answer.headers
    assert send(client, url, 100_000, DATA[100_000:]).status_code == 204
    shown = client.get(url).json()
    assert (shown["name"], shown["complete"]) == ("plot-7.jpg", True)
    assert shown["offset_bytes"] == shown["size_bytes"] == SIZE
    assert shown in client.get("/v1/uploads").json()["uploads"]
    assert stored(server, url) == DATA


def test_a_wrong_offset_is_a_conflict_and_changes_nothing(client, server):
    url = announce(client)
    send(client, url, 0, DATA[:1000])
    for offset in (0, 999, 1001, SIZE):
        answer = send(client, url, offset, DATA[offset:])
        assert answer.status_code == 409
        assert "expected 1000" in answer.json()["detail"]
    assert stored(server, url) == DATA[:1000]


def test_what_came_before_a_dropped_connection_counts(client, server):
    url = announce(client)
    host, port = server.url.removeprefix("http://").split(":")
    with server.connect() as connection:
        head = f"PATCH {url} HTTP/1.1\r\nHost: {host}:{port}\r\nUpload-Offset: 0\r\n"
        head += "".join(f"{name}: {value}\r\n" for name, value in PIECE.items())
        connection.sendall(f"{head}Content-Length: {SIZE}\r\n\r\n".encode() + DATA[:200_000])
        time.sleep(0.3)
    end = time.monotonic() + 20
    while (offset := offset_of(client, url)) == 0 and time.monotonic() < end:
        time.sleep(0.05)
    assert 0 < offset <= 200_000
    while send(client, url, offset, DATA[offset:]).status_code == 423:
        time.sleep(0.05)
    assert stored(server, url) == DATA


def test_more_than_was_announced_is_refused(client, server):
    url = announce(client, 1000)
    answer = send(client, url, 0, DATA[:1001])
    assert answer.status_code == 413
    assert offset_of(client, url) == 0
    too_large = {**TUS, "Upload-Length": str((64 << 20) + 1)}
    assert client.post("/v1/uploads", headers=too_large).status_code == 413


def test_a_checksum_decides_whether_a_piece_counts(client, server):
    url = announce(client)
    for name in ("sha1", "sha256"):
        good = base64.b64encode(hashlib.new(name, DATA).digest()).decode()
        answer = send(client, url, 0, DATA[:-1] + b"x", **{"Upload-Checksum": f"{name} {good}"})
        assert answer.status_code == 460, answer.text
        assert offset_of(client, url) == 0
    assert send(client, url, 0, DATA, **{"Upload-Checksum": f"sha256 {good}"}).status_code == 204
    assert stored(server, url) == DATA
    assert send(client, url, 0, b"", **{"Upload-Checksum": "md5 AAAA"}).status_code == 400


def test_faults_of_the_client_are_told(client):
    url = announce(client)
    assert client.post("/v1/uploads", headers={"Upload-Length": "5"}).status_code == 412
    answer = client.head(url, headers={"Tus-Resumable": "0.2.2"})
    assert (answer.status_code, answer.headers["Tus-Version"]) == (412, "1.0.0")
    assert client.post("/v1/uploads", headers=TUS).status_code == 422
    bad = {**TUS, "Upload-Length": "5", "Upload-Metadata": "filename ???"}
    assert client.post("/v1/uploads", headers=bad).status_code == 400
    plain = {**TUS, "Upload-Offset": "0", "Content-Type": "image/jpeg"}
    assert client.patch(url, content=b"x", headers=plain).status_code == 415
    assert send(client, "/v1/uploads/nothing", 0, b"x").status_code == 404


def test_termination_removes_the_file(client, server):
    url = announce(client)
    send(client, url, 0, DATA[:10])
    assert client.delete(url, headers=TUS).status_code == 204
    assert client.head(url, headers=TUS).status_code == 404
    assert client.delete(url, headers=TUS).status_code == 404
    assert list(server.data.glob(f"owners/*/uploads/{url.rpartition('/')[2]}")) == []


def test_an_upload_goes_on_after_the_server_was_killed(server):
    with server.client() as client:
        url = announce(client, 40 << 20)
        gone = threading.Event()

        def forever():
            for _ in range(40 * 64):
                if gone.is_set():
                    return
                yield bytes(1 << 14)
                time.sleep(0.0005)

        def upload():
            try:
                send(client, url, 0, forever())
            except httpx.TransportError:
                return

        thread = threading.Thread(target=upload)
        thread.start()
        end = time.monotonic() + 30
        (path,) = server.data.glob(f"owners/*/uploads/{url.rpartition('/')[2]}")
        while path.stat().st_size < 20 << 20 and time.monotonic() < end:
            time.sleep(0.01)
        kill_all(server)
        gone.set()
        thread.join()
    server.start()
    with server.client() as client:
        offset = offset_of(client, url)
        assert 16 << 20 <= offset <= path.stat().st_size  # told only once it is on the disk
        assert send(client, url, offset, bytes((40 << 20) - offset)).status_code == 204
        assert client.get(url).json()["complete"]
    assert path.read_bytes() == bytes(40 << 20)


def test_one_writer_at_a_time(place):
    upload = place.uploads.create(OWNER, "a.jpg", 10)
    writer = place.uploads.open(OWNER, upload.id, 0)
    with pytest.raises(Problem, match="another connection") as raised:
        place.uploads.open(OWNER, upload.id, 0)
    assert raised.value.status == 423
    writer.write(b"12345")
    writer.close()
    second = place.uploads.open(OWNER, upload.id, 5)
    second.write(b"67890")
    second.close()
    assert place.uploads.get(OWNER, upload.id).complete
    assert place.uploads.path(OWNER, upload.id).read_bytes() == b"1234567890"


def test_bytes_behind_the_offset_are_cut_off(place):
    upload = place.uploads.create(OWNER, "a.jpg", 10)
    place.uploads.path(OWNER, upload.id).write_bytes(b"garbage that no row knows of")
    writer = place.uploads.open(OWNER, upload.id, 0)
    writer.write(b"123")
    writer.close()
    assert place.uploads.path(OWNER, upload.id).read_bytes() == b"123"
    wrong = Checksum(algorithm="sha1", digest=b"x")
    writer = place.uploads.open(OWNER, upload.id, 3, wrong)
    writer.write(b"456")
    writer.close()
    assert place.uploads.get(OWNER, upload.id).offset_bytes == 3


def test_the_quota_counts_what_unfinished_uploads_may_still_bring(tmp_path):
    place = Place(tmp_path, quota_bytes=1000)
    try:
        place.uploads.create(OWNER, "a.jpg", 600)
        with pytest.raises(Problem) as raised:
            place.uploads.create(OWNER, "b.jpg", 600)
        assert raised.value.status == 507
        place.uploads.create("south-farm", "b.jpg", 600)
        assert len(place.uploads.list(OWNER, 10, 0)) == 1
    finally:
        place.close()


def test_uploads_expire(place):
    half, whole, fresh = (place.uploads.create(OWNER, "a.jpg", n).id for n in (5, 0, 5))
    late = time.time() - UNFINISHED_HOURS * 3600 - 1
    with place.database.begin() as session:
        session.execute(update(Upload).where(Upload.id.in_([half, whole])).values(changed_s=late))
    with pytest.raises(Problem):
        place.uploads.get(OWNER, half)
    month_ago = time.time() - 30 * 86400
    assert place.uploads.expire(month_ago) == 1
    assert place.uploads.known(OWNER) == {whole, fresh}
    assert not place.uploads.path(OWNER, half).exists()
    assert place.uploads.expire(late + 1) == 1
    assert place.uploads.known(OWNER) == {fresh}


def test_names_are_made_fit_to_show():
    assert clean_name("C:\\fotos\\plot 7.jpg") == "plot 7.jpg"
    assert clean_name("../../etc/passwd") == "passwd"
    assert clean_name("a\x00\x1b[2Jb.jpg") == "a[2Jb.jpg"
    assert clean_name("..") == ".."
    assert clean_name("") == "photo"
    long = clean_name("x" * 500 + ".jpeg")
    assert len(long) == 200
    assert long.endswith(".jpeg")
