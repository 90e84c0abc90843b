"""The files of the web page: what their headers allow, and what is in them."""

import importlib.util

import pytest
from fastapi.testclient import TestClient

from weedseg.serve.app import create_app
from weedseg.serve.routes import pages
from weedseg.serve.settings import Settings


@pytest.fixture
def client(tmp_path):
    return TestClient(create_app(Settings(data=tmp_path)))


def test_the_page_allows_nothing_from_elsewhere(client):
    files = {path.name: client.get(f"/web/{path.name}") for path in pages.FOLDER.iterdir()}
    for answer in (client.get("/"), client.head("/"), *files.values()):
        assert answer.status_code == 200
        assert answer.headers["Content-Security-Policy"] == pages.POLICY
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert "unsafe" not in answer.headers["Content-Security-Policy"]
    assert files["app.js"].headers["Content-Type"] == "text/javascript; charset=utf-8"
    assert files["style.css"].headers["Content-Type"] == "text/css; charset=utf-8"


@pytest.mark.parametrize("path", sorted(pages.FOLDER.iterdir()), ids=lambda path: path.name)
def test_files_load_nothing_and_make_no_html_of_text(path):
    text = path.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
    words = ("http:", "https:", "//cdn", "innerHTML", "insertAdjacentHTML", "eval(", " style=")
    assert [word for word in words if word in text] == []
    assert len(text.splitlines()) <= 400


def test_a_browser_that_has_a_file_is_not_sent_it_again(client):
    first = client.get("/web/app.js")
    again = client.get("/web/app.js", headers={"If-None-Match": first.headers["ETag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["Content-Security-Policy"] == pages.POLICY


@pytest.mark.parametrize("path", ["nothing", "../app.py", "%2e%2e/app.py", "..%2fapp.py", ""])
def test_nothing_else_is_served(client, path):
    answer = client.get(f"/web/{path}")
    assert answer.status_code == 404
    assert answer.headers["Content-Type"] == "application/problem+json"


@pytest.mark.parametrize("there", [True, False])
def test_heic_is_offered_where_the_service_reads_it(monkeypatch, there):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object() if there else None)
    html = pages.index_html(Settings(max_upload_bytes=123456))
    assert (".heic" in html) == there
    assert ("WebP or HEIC" in html) == there
    assert "123456" in html
    assert "$" not in html
