"""The benchmark of the service: a small one from end to end, and that its clients hide nothing."""

import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from colour_model import make_colour_model

from weedseg.bench.batching import measure_batching
from weedseg.bench.lines import append_line, read_lines
from weedseg.bench.serve import LOAD, photo_files
from weedseg.bench.serve_load import Clients, poisson_times, rate_of
from weedseg.bench.serve_table import draw_serve
from weedseg.bench.upload import measure_upload
from weedseg.cli import main
from weedseg.imaging import read_image, write_png


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "model.onnx"
    path.write_bytes(make_colour_model(tile_px=256, overlap_px=32))
    return path


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for number in range(3):
        write_png(folder / f"{number}.png", rng.integers(0, 256, (240, 320, 3), dtype=np.uint8))
    return folder


class Stand:
    """A server of the standard library that answers 503 to every third, one at a time."""

    def __enter__(self):
        self.lock, self.num, self.pause_s = threading.Lock(), 0, 0.1
        stand = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                self.rfile.read(int(self.headers["Content-Length"]))
                with stand.lock:
                    stand.num += 1
                    code = 503 if stand.num % 3 == 0 else 200
                    time.sleep(stand.pause_s)
                self.send_response(code)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *error):
        self.server.shutdown()
        self.server.server_close()


def test_waiting_counts_from_the_moment_when_a_request_was_due():
    """20 requests within 0.2 s to a server that takes 0.1 s for each: the last waits 2 s."""
    with Stand() as stand, Clients(stand.url, [b"photo"], connections=2) as clients:
        replies = clients.arrive(np.linspace(0, 0.2, 20))
    assert sorted({reply.status for reply in replies}) == [200, 503]
    assert sum(reply.status == 503 for reply in replies) == 6
    assert not any(reply.failed for reply in replies)
    assert max(reply.latency_s for reply in replies) >= 20 * stand.pause_s - 0.2
    assert rate_of(replies) <= 1 / stand.pause_s


def test_a_dead_server_is_a_failure_not_a_refusal():
    with Stand() as stand:
        url = stand.url
    with Clients(url, [b"photo"], connections=1) as clients:
        reply = clients.post()
    assert reply.status == 0
    assert reply.failed


def test_arrivals_are_random_at_the_wanted_rate():
    times = poisson_times(50.0, 5000)
    gaps = np.diff(times)
    assert (gaps >= 0).all()
    assert gaps.mean() == pytest.approx(1 / 50, rel=0.05)
    assert gaps.std() == pytest.approx(gaps.mean(), rel=0.1)  # of an exponential both are equal


def test_bench_serve_from_end_to_end(model, photos, tmp_path, capsys):
    out = tmp_path / "serve" / "load.jsonl"
    arguments = ["--model", model, "--photos", photos, "--workers", "1", "--seconds", "0.5"]
    arguments += ["--requests", "30", "--out", out]
    assert main(["bench", "serve", *map(str, arguments)]) == 0
    (line,) = read_lines(out)
    assert line["photo_px"] == [320, 240]
    assert line["photos"] == 3
    assert line["bare"]["photos_s"] > 0
    shares = np.array(line["served"]["rounds"]) / line["bare"]["rounds"]
    assert line["share_kept"] == pytest.approx(float(np.median(shares)), rel=1e-2)
    assert line["load"]["requests"] == 30
    assert line["load"]["requests_s"] == pytest.approx(LOAD * line["served"]["photos_s"])
    assert line["load"]["p50_ms"] <= line["load"]["p99_ms"] <= line["load"]["worst_ms"]
    burst = line["burst"]
    assert burst["accepted"] + burst["refused"] + burst["failed"] == burst["requests"]
    assert burst["failed"] == line["served"]["failed"] == line["load"]["failed"] == 0
    assert min(line["stage_ms"].values()) > 0
    drawn = draw_serve(out.parent)
    assert f"{100 * line['share_kept']:.0f} %" in drawn
    assert drawn.strip() in capsys.readouterr().out


def test_batching_and_upload(model, photos, tmp_path):
    line = measure_batching(model, rounds=3)
    assert line["tile_time_share"]["1"] == 1.0
    assert set(line["tile_ms"]) == {"1", "2", "4"}
    append_line(tmp_path / "batching.jsonl", line)
    line = measure_upload(model, photos / "0.png", rounds=1)
    assert sum(line["stages_s"].values()) == pytest.approx(line["direct_s"])
    assert line["page_s"] > 0
    append_line(tmp_path / "upload.jsonl", line)
    drawn = draw_serve(tmp_path)
    assert "tiles a run" in drawn
    assert "0.png" in drawn


def test_photos_are_drawn_where_none_are_given(tmp_path, model, photos):
    assert len(photo_files(photos, model)) == 3
    drawn = photo_files(None, model)
    (tmp_path / "photo.jpg").write_bytes(drawn[0])
    assert read_image(tmp_path / "photo.jpg").shape == (720, 960, 3)
    assert len(set(drawn)) == len(drawn)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [(["--workers", "1,x"], "--workers 1,x"), (["--photos", "."], "no photo")],
)
def test_odd_arguments_are_one_sentence(arguments, told, model, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["bench", "serve", "--model", str(model), *arguments]) != 0
    assert told in " ".join(capsys.readouterr().err.split())
    assert not list(tmp_path.rglob("*.jsonl"))
