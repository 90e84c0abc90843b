"""Fetching from a server that drops, lies and changes its mind, and archives that mean harm."""

import http.server
import io
import json
import os
import shutil
import stat
import threading
import zipfile
from collections import namedtuple
from hashlib import md5, sha256

import numpy as np
import pytest

from weedseg.cli import main
from weedseg.data import download as downloading
from weedseg.data.facts import manifests
from weedseg.data.fetch import fetch, read_published
from weedseg.data.unpack import RAR_TOOLS, Limits, unpack
from weedseg.errors import ConfigError, FieldDataError, OutputError, RuntimeUnavailableError

PIECE = 300_000


def zipped(files):
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return data.getvalue()


NOISE = np.random.default_rng(0).bytes(1_000_000)
GOOD = zipped({"set-1/images/a.png": NOISE, "set-1/notes.txt": b"hello"})
OTHER = zipped({"set-1/images/a.png": NOISE[::-1], "set-1/notes.txt": b"hello"})


class Server:
    """Serves one file; `behave(handler, number)` may answer instead and then returns True."""

    def __init__(self):
        self.data, self.etag, self.requests = GOOD, '"1"', []
        self.ranges, self.piece, self.extra = True, None, 0
        self.behave = lambda handler, number: False
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                outer.requests.append(dict(self.headers))
                if not outer.behave(self, len(outer.requests)):
                    outer.answer(self)

            def log_message(self, *args):
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}/set.zip"

    def answer(self, handler):
        """Answer honestly, but for `piece` (break off after so many bytes) and `extra`."""
        start, headers = 0, handler.headers
        asked = headers.get("Range") if self.ranges else None
        if asked and headers.get("If-Range", self.etag) == self.etag:
            start = int(asked.removeprefix("bytes=").removesuffix("-"))
        body = self.data[start:]
        if start and not body:
            handler.send_response(416)
            handler.send_header("Content-Range", f"bytes */{len(self.data)}")
            handler.send_header("Content-Length", "0")
            handler.end_headers()
            return
        handler.send_response(206 if start else 200)
        if start:
            span = f"bytes {start}-{len(self.data) - 1}/{len(self.data)}"
            handler.send_header("Content-Range", span)
        if self.etag:
            handler.send_header("ETag", self.etag)
        handler.send_header("Content-Length", str(max(len(body) + self.extra, 0)))
        handler.end_headers()
        handler.wfile.write(body[: self.piece])
        handler.close_connection = True

    def close(self):
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def server():
    running = Server()
    yield running
    running.close()


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch):
    monkeypatch.setattr(downloading.time, "sleep", lambda seconds: None)


@pytest.fixture
def manifest(server, tmp_path):
    """Write a manifest for the server's file; returns its path."""

    def write(**facts):
        lines = [f'url = "{server.url}"', *(f"{k} = {json.dumps(v)}" for k, v in facts.items())]
        text = (
            'name = "set"\ntitle = "A set"\nsource = "https://example.org"\nlicence = "CC0"\n'
            'citation = "nobody"\n[fetch]\narchives = ["set.zip"]\nroot = "*"\n[[fetch.files]]\n'
        )
        path = tmp_path / "set.toml"
        path.write_text(text + "\n".join(lines) + "\n")
        return path

    return write


def got(path, out):
    return fetch(read_published(str(path)), out, accepted=True)


def check(root, data=NOISE):
    assert (root / "images/a.png").read_bytes() == data
    assert (root / "notes.txt").read_bytes() == b"hello"


def record(out):
    return json.loads((out / "downloads/downloads.json").read_text())["files"]["set.zip"]


# --- downloading ------------------------------------------------------------------------------


def test_an_unknown_checksum_is_recorded_and_compared(manifest, server, tmp_path):
    path, out = manifest(sha256="unknown"), tmp_path / "out"
    check(got(path, out))
    assert record(out)["sha256"] == sha256(GOOD).hexdigest()
    assert record(out)["checksum"] == "recorded here, none is published"
    assert sorted(f.name for f in (out / "downloads").iterdir()) == ["downloads.json", "set.zip"]
    check(got(path, out))
    assert len(server.requests) == 1
    (out / "downloads/set.zip").write_bytes(OTHER)
    with pytest.raises(FieldDataError, match=r"set\.zip has sha256 .*delete it and fetch again"):
        got(path, out)


def test_drops_are_resumed(manifest, server, tmp_path):
    server.piece = PIECE
    path = manifest(sha256=sha256(GOOD).hexdigest())
    check(got(path, tmp_path / "out"))
    starts = [r.get("Range") for r in server.requests]
    assert starts == [None, *(f"bytes={PIECE * i}-" for i in range(1, len(GOOD) // PIECE + 1))]
    assert record(tmp_path / "out")["checksum"] == "as published (sha256)"


def test_a_stopped_run_goes_on(manifest, server, tmp_path):
    """The second run asks only for what the first one did not get."""
    server.piece = PIECE
    server.behave = lambda handler, number: number > 1 and not handler.send_error(404)
    with pytest.raises(FieldDataError, match="HTTP 404"):
        got(manifest(), tmp_path / "out")
    server.behave, server.piece = (lambda handler, number: False), None
    check(got(manifest(), tmp_path / "out"))
    assert server.requests[-1]["Range"] == f"bytes={PIECE}-"
    assert server.requests[-1]["If-Range"] == '"1"'


def test_two_versions_are_never_joined(manifest, server, tmp_path):
    def change(handler, number):
        server.piece = PIECE if number == 1 else None
        server.data, server.etag = (GOOD, '"1"') if number == 1 else (OTHER, '"2"')
        return False

    server.behave = change
    check(got(manifest(), tmp_path / "out"), NOISE[::-1])


def test_without_a_version_nothing_is_joined(manifest, server, tmp_path):
    server.etag = ""

    def drop_once(handler, number):
        server.piece = PIECE if number == 1 else None
        return False

    server.behave = drop_once
    check(got(manifest(), tmp_path / "out"))
    assert [r.get("Range") for r in server.requests] == [None, None]


def test_a_server_that_ignores_ranges(manifest, server, tmp_path):
    server.ranges = False

    def further_each_time(handler, number):
        server.piece = PIECE * number
        return False

    server.behave = further_each_time
    check(got(manifest(), tmp_path / "out"))
    assert len(server.requests) == len(GOOD) // PIECE + 1
    server.behave, server.piece = (lambda handler, number: False), PIECE
    with pytest.raises(FieldDataError, match="breaks off after 300000 bytes"):
        got(manifest(), tmp_path / "again")
    assert not (tmp_path / "again/unpacked").exists()


@pytest.mark.parametrize(
    ("extra", "known", "words"),
    [
        (500, False, f"received {len(GOOD)} bytes, expected {len(GOOD) + 500}"),
        (-500, False, "is no archive|cannot be unpacked"),
        (-500, True, "has sha256"),
    ],
)
def test_a_server_that_lies_about_the_length(extra, known, words, manifest, server, tmp_path):
    """Too long: the end never comes. Too short: checksum or archive tell."""
    server.extra, server.etag = extra, ""
    facts = {"sha256": sha256(GOOD).hexdigest()} if known else {}
    with pytest.raises(FieldDataError, match=words) as caught:
        got(manifest(**facts), tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert [f.name for f in (tmp_path / "out").iterdir()] == ["downloads"]


def test_a_lie_that_the_checksum_disproves(manifest, server, tmp_path):
    """Asked for what lies behind the true end, the server admits it; the checksum is right."""
    server.extra = 500
    check(got(manifest(sha256=sha256(GOOD).hexdigest()), tmp_path / "out"))
    assert [r.get("Range") for r in server.requests] == [None, f"bytes={len(GOOD)}-"]


def test_a_published_size_is_believed_more_than_the_server(manifest, server, tmp_path):
    with pytest.raises(FieldDataError, match=f"has {len(GOOD)} bytes; expected 99"):
        got(manifest(bytes=99), tmp_path / "out")
    check(got(manifest(bytes=len(GOOD)), tmp_path / "good"))


def test_corrupt_bytes_are_fetched_once_more(manifest, server, tmp_path):
    facts = {"sha256": "unknown", "md5": md5(GOOD, usedforsecurity=False).hexdigest()}

    def corrupt_first(handler, number):
        server.data = OTHER if number == 1 else GOOD
        return False

    server.behave = corrupt_first
    check(got(manifest(**facts), tmp_path / "out"))
    assert len(server.requests) == 2
    server.behave, server.data = (lambda handler, number: False), OTHER
    with pytest.raises(FieldDataError, match=r"has md5 .*ask its publisher"):
        got(manifest(**facts), tmp_path / "bad")
    assert list((tmp_path / "bad/downloads").iterdir()) == []


def test_corrupt_bytes_without_checksum_are_found_by_the_archive(manifest, server, tmp_path):
    middle = len(GOOD) // 2
    server.data = GOOD[:middle] + bytes(50) + GOOD[middle + 50 :]
    with pytest.raises(FieldDataError, match=r"cannot be unpacked: .*delete .* and fetch it again"):
        got(manifest(), tmp_path / "out")
    assert [f.name for f in (tmp_path / "out").iterdir()] == ["downloads"]


def test_a_busy_server_is_asked_again(manifest, server, tmp_path):
    server.behave = lambda handler, number: number < 3 and not handler.send_error(503)
    check(got(manifest(), tmp_path / "out"))
    assert len(server.requests) == 3


def moved(address):
    def answer(handler, number):
        handler.send_response(302)
        handler.send_header("Location", address)
        handler.send_header("Content-Length", "0")
        handler.end_headers()
        return True

    return answer


@pytest.mark.parametrize("address", ["/set.zip", "file:///etc/passwd", "http://"])
def test_redirects_that_lead_nowhere(address, manifest, server, tmp_path):
    server.behave = moved(address)
    with pytest.raises(FieldDataError, match="breaks off after 0 bytes"):
        got(manifest(), tmp_path / "out")


def test_compression_on_the_way_is_refused(manifest, server, tmp_path):
    def packed(handler, number):
        assert handler.headers["Accept-Encoding"] == "identity"
        handler.send_response(200)
        handler.send_header("Content-Encoding", "gzip")
        handler.send_header("Content-Length", "0")
        handler.end_headers()
        return True

    server.behave = packed
    with pytest.raises(FieldDataError, match="is sent compressed"):
        got(manifest(), tmp_path / "out")


def test_no_room(manifest, server, tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(1, 1, 300 << 20))
    with pytest.raises(OutputError, match="300 MiB free"):
        got(manifest(bytes=100 << 20), tmp_path / "published")
    assert server.requests == []
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(1, 1, 256 << 20))
    with pytest.raises(OutputError, match="256 MiB free"):
        got(manifest(), tmp_path / "said-by-the-server")
    assert not (tmp_path / "said-by-the-server/downloads/set.zip.part").exists()


def test_the_licence_comes_first(manifest, server, tmp_path, capsys):
    arguments = ["data", "fetch", str(manifest()), "--out", str(tmp_path / "out")]
    assert main(arguments) == ConfigError.exit_code
    said = capsys.readouterr()
    assert "licence:  CC0" in said.out
    assert "--accept-licence" in said.err
    assert server.requests == []
    assert not (tmp_path / "out").exists()
    assert main([*arguments, "--accept-licence"]) == 0
    root = tmp_path / "out/unpacked/set-1"
    assert f"next: weedseg data import set {root} --out FARM" in capsys.readouterr().out
    check(root)


# --- manifests --------------------------------------------------------------------------------


def test_manifests_that_come_with_weedseg():
    for name in manifests():
        if name == "nassar2020":
            with pytest.raises(ConfigError, match="Kaggle asks for an account"):
                read_published(name)
            continue
        published = read_published(name)
        assert published.files
        assert all(file.url.startswith("https://") for file in published.files)
        assert published.licence != "unknown"
    assert len(read_published("sugarbeets2016").files) == 11
    with pytest.raises(ConfigError, match="one of cwfid"):
        read_published("imagenet")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('root = "*"', 'root = "../.."'),
        ('archives = ["set.zip"]', 'archives = ["other.zip"]'),
        ("http://127", "ftp://127"),
        ("http://127.0.0.1", "http://example.org"),
        ("set.zip", "downloads.json"),
        ("[[fetch.files]]", '[[fetch.files]]\nname = "../set.zip"'),
        ("[[fetch.files]]", '[[fetch.files]]\nsha256 = "12"'),
        ('licence = "CC0"', ""),
    ],
)
def test_manifests_that_are_wrong(old, new, manifest):
    path = manifest()
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    with pytest.raises(ConfigError):
        read_published(str(path))


# --- unpacking --------------------------------------------------------------------------------


def entry(name, mode):
    info = zipfile.ZipInfo(name)
    info.external_attr = mode << 16
    return info


@pytest.mark.parametrize(
    "names",
    [
        ["../a"],
        ["/etc/a"],
        ["a/../../b"],
        ["C:/a"],
        ["..\\a"],
        ["a\nb"],
        ["a", "A"],
        ["a/x", "A/y"],
        ["a", "a/b"],
        ["a", "a"],
        ["\u00e9", "e\u0301"],
        [entry("link", stat.S_IFLNK | 0o777)],
        [entry("device", stat.S_IFCHR | 0o600)],
        [entry("pipe", stat.S_IFIFO | 0o600)],
    ],
)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_names_that_are_refused(names, tmp_path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        for name in names:
            archive.writestr(name, "/etc/passwd")
    (tmp_path / "out").mkdir()
    with pytest.raises(FieldDataError, match=r"x\.zip holds") as caught:
        unpack(tmp_path / "x.zip", tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert {f.name for f in tmp_path.iterdir()} == {"x.zip", "out"}
    assert not any(f.is_symlink() for f in (tmp_path / "out").rglob("*"))


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        (Limits(max_bytes=5_000_000), "more than 5000000 bytes"),
        (Limits(max_files=2), "too many files"),
        (Limits(small_bytes=1 << 20), "a file that grows"),
    ],
)
def test_bombs_are_stopped_while_they_grow(limits, words, tmp_path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for i in range(4):
            archive.writestr(f"{i}", bytes(2_000_000))
    (tmp_path / "out").mkdir()
    with pytest.raises(FieldDataError, match=words):
        unpack(tmp_path / "x.zip", tmp_path / "out", limits)
    assert sum(f.stat().st_size for f in (tmp_path / "out").iterdir()) <= 6_000_000


def test_a_lying_size_is_found(tmp_path):
    """The directory says 5 bytes; the file has 2 million."""
    data = bytearray(zipped({"a": bytes(2_000_000)}))
    place = data.index(b"PK\x01\x02")
    data[place + 24 : place + 28] = (5).to_bytes(4, "little")
    (tmp_path / "x.zip").write_bytes(bytes(data))
    (tmp_path / "out").mkdir()
    with pytest.raises(FieldDataError, match="cannot be unpacked"):
        unpack(tmp_path / "x.zip", tmp_path / "out")
    with pytest.raises(FieldDataError, match="is no archive"):
        unpack(tmp_path / "out" / "a", tmp_path / "out")


def test_no_room_to_unpack(tmp_path):
    (tmp_path / "x.zip").write_bytes(GOOD)
    (tmp_path / "out").mkdir()
    free = shutil.disk_usage(tmp_path).free
    with pytest.raises(OutputError, match="free some space"):
        unpack(tmp_path / "x.zip", tmp_path / "out", Limits(spare_bytes=2 * free))


# --- RAR: no such program is installed here, so scripts stand in for unar and unrar --------------


@pytest.fixture
def rar_tool(tmp_path, monkeypatch):
    def install(name, script):
        folder = tmp_path / "bin"
        folder.mkdir(exist_ok=True)
        path = folder / name
        place = {"unar": "$5", "unrar": "$7"}[name]
        path.write_text(f'#!/bin/sh\nOUT="{place}"\necho "$@" > "{tmp_path}/called"\n{script}\n')
        path.chmod(0o755)
        monkeypatch.setenv("PATH", f"{folder}{os.pathsep}/usr/bin{os.pathsep}/bin")

    return install


@pytest.fixture
def parts(tmp_path):
    for i in (1, 2):
        (tmp_path / f"set.part0{i}.rar").write_bytes(NOISE[:1000])
    (tmp_path / "out").mkdir()
    return tmp_path / "set.part01.rar"


@pytest.mark.parametrize("name", list(RAR_TOOLS))
def test_rar_parts_go_through_an_installed_program(name, rar_tool, parts, tmp_path):
    rar_tool(name, 'mkdir "$OUT/set"; echo hello > "$OUT/set/a.txt"')
    unpack(parts, tmp_path / "out")
    assert (tmp_path / "out/set/a.txt").read_text() == "hello\n"
    called = (tmp_path / "called").read_text()
    assert str(parts) in called
    assert "part02" not in called


def test_without_a_program_for_rar_a_sentence_says_what_to_install(parts, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RuntimeUnavailableError, match="apt install unar"):
        unpack(parts, tmp_path / "out")


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ('echo "part02 is damaged"; exit 3', "cannot unpack .*: part02 is damaged"),
        ('ln -s /etc/passwd "$OUT/a"', "no plain file"),
        ('ln -s /etc "$OUT/a"', "no plain file"),
        ('mkfifo "$OUT/a"', "no plain file"),
        ('touch "$OUT/a" "$OUT/A"', "twice, in one spelling or two"),
        ("true", "holds no file"),
        ('while true; do head -c 100000 /dev/zero >> "$OUT/a"; done', "more than 3000000 bytes"),
    ],
)
def test_rar_that_means_harm(script, words, rar_tool, parts, tmp_path, monkeypatch):
    rar_tool("unar", script)
    with pytest.raises(FieldDataError, match=words) as caught:
        unpack(parts, tmp_path / "out", Limits(max_bytes=3_000_000, max_growth=10_000))
    assert "\n" not in str(caught.value)
