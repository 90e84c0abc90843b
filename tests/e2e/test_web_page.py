"""The web page in a real Chromium, against a real server with the released model."""

from __future__ import annotations

import csv
import io
import shutil
import time
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image
from serving import GOLDEN, Server
from watched import Watched
from wire import Wire

from weedseg.data.rle import to_coco
from weedseg.data.synthetic import draw_photo, draw_style
from weedseg.edge.result import percent
from weedseg.serve.database import Database
from weedseg.serve.keys import NONE_HOLDS_S, KeyStore

api = pytest.importorskip("playwright.sync_api", reason="the package playwright is not installed")
expect = api.expect

WEED, CROP = (0xD5, 0x5E, 0x00), (0x00, 0x9E, 0x73)
DRAWN = "(colour) => probes.drawn(colour)"
EVIL = "<img src=x onerror=alert(1)>.jpg"
"""A file name that must stay a text."""


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with Server(tmp_path_factory.mktemp("page") / "data", job_worker="true") as running:
        yield running


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """A real photo, a drawn one and a file that is none."""
    folder = tmp_path_factory.mktemp("photos")
    shutil.copy(GOLDEN / "in.png", folder / "plot-1.png")
    rng = np.random.default_rng(5)
    image, _ = draw_photo(rng, draw_style(5, 0, 0), (480, 640))
    Image.fromarray(image).save(folder / "plot-2.jpg", quality=90)
    (folder / EVIL).write_bytes(rng.bytes(5000))
    return [folder / "plot-1.png", folder / "plot-2.jpg", folder / EVIL]


@pytest.fixture(scope="module")
def job(browser, server, photos):
    """A finished job that was handed in through the page, and what was seen on the way."""
    seen = Watched(browser, server.url)
    page = seen.page
    seen.open()
    expect(page.get_by_role("button", name="Analyse photos")).to_be_disabled()
    page.get_by_label("Choose photos").set_input_files(photos)
    page.get_by_label("Ground resolution").fill("0.5")
    expect(page.locator(".files li")).to_have_count(3)
    seen.check_for_all()
    page.get_by_role("button", name="Analyse 3").click()
    page.wait_for_url("**/#/jobs/*")
    page.get_by_role("link", name="Table (CSV)").wait_for(timeout=60_000)
    job_id = page.url.rpartition("/")[2]
    with server.client() as client:
        answer = client.get(f"/jobs/{job_id}/results").json()
        uploads = client.get("/v1/uploads").json()["uploads"]
    yield seen, job_id, answer, uploads
    seen.check("willReadFrequently")  # it is the test that reads the canvas


def _covers(answer, role):
    """Covers of the photos in per cent, by name."""
    good = [photo for photo in answer["photos"] if photo["summary"]]
    return {
        photo["photo"]: 100
        * sum(c["coverage"] for c in photo["summary"]["classes"] if c["role"] == role)
        for photo in good
    }


def _rows(page):
    return [cell.inner_text() for cell in page.locator("tbody th .link[data-number]").all()]


def _wait_for(page, colour, percent):
    """Wait until the canvas draws so much of the photo in a colour."""
    for _ in range(100):
        drawn = 100 * page.evaluate(DRAWN, list(colour))
        if abs(drawn - percent) < 0.1:
            return
        page.wait_for_timeout(50)
    pytest.fail(f"{drawn:.2f} % of the photo is drawn so; expected {percent:.2f} %")


def _number(text):
    return float(text.replace("<", "").replace("\u00a0", " ").split()[0])


# --- photos in, results out --------------------------------------------------------------------


def test_figures_on_the_page_are_those_of_the_service(job):
    seen, _, answer, uploads = job
    page = seen.page
    assert uploads == [], "the job has the photos, the uploads would only take room"
    weeds, crops = _covers(answer, "weed"), _covers(answer, "crop")
    expect(page.locator(".state")).to_have_text("Finished")
    shown = dict.fromkeys(_rows(page))
    assert set(shown) == set(weeds)
    for row in page.locator("section table").last.locator("tbody tr").all():
        name, weed, crop, area, patches, confidence, _ = row.locator("th, td").all_inner_texts()
        summary = next(p["summary"] for p in answer["photos"] if p["photo"] == name)
        assert _number(weed) == pytest.approx(weeds[name], abs=0.05)
        assert _number(crop) == pytest.approx(crops[name], abs=0.05)
        assert "m²" in area
        assert int(patches) == summary["num_patches"]
        assert _number(confidence) == pytest.approx(100 * summary["confidence"], abs=0.5)
    mean = page.locator(".figures div", has_text="Weed cover").locator("b").inner_text()
    assert _number(mean) == pytest.approx(np.mean(list(weeds.values())), abs=0.05)


def test_every_result_says_what_the_model_was_never_evaluated_on(job):
    seen, _, _, _ = job
    note = seen.page.get_by_role("note")
    expect(note).to_contain_text("peanut-lite0")
    expect(note).to_contain_text("on any other crop this model is not evaluated")
    expect(seen.page.locator(".side")).to_contain_text("Not evaluated on your photos")


def test_a_bad_photo_is_named_with_its_sentence(job):
    seen, _, answer, _ = job
    problem = next(p["problem"] for p in answer["photos"] if p["problem"])
    section = seen.page.get_by_role("region", name="1 photo without a result")
    expect(section).to_contain_text(EVIL)
    told = section.locator("p").inner_text()
    assert told.lower().rstrip(".") == problem.removeprefix(f"{EVIL}:").strip().lower().rstrip(".")
    assert seen.page.locator("img[src='x']").count() == 0


def test_classes_can_be_switched_off_and_compared(job):
    seen, _, answer, _ = job
    page = seen.page
    page.get_by_role("button", name="plot-1.png").click()
    expect(page.get_by_role("heading", name="plot-1.png", exact=True)).to_be_focused()
    weed, crop = (_covers(answer, role)["plot-1.png"] for role in ("weed", "crop"))
    assert min(weed, crop) > 0.1
    _wait_for(page, WEED, weed)
    _wait_for(page, CROP, crop)
    page.locator("[data-class=weed]").uncheck()
    _wait_for(page, WEED, 0)
    _wait_for(page, CROP, crop)
    page.get_by_role("button", name="Next photo").click()
    _wait_for(page, CROP, _covers(answer, "crop")["plot-2.jpg"])
    expect(page.locator("[data-class=weed]")).not_to_be_checked()
    page.locator("[data-class=weed]").check()
    page.get_by_role("radio", name="Before / after").check()
    divider = page.get_by_role("slider", name="Line between")
    divider.press("ArrowRight")
    cut = "document.querySelector('.picture').style.getPropertyValue('--cut')"
    assert page.evaluate(cut) == "51%"
    page.get_by_role("radio", name="Confidence").check()
    assert page.evaluate("document.querySelector('.confidence').decode().then(() => true)")
    page.get_by_role("radio", name="Classes").check()
    patch = page.get_by_role("button", name="Show 1", exact=True)
    patch.click()
    expect(patch).to_have_attribute("aria-pressed", "true")
    expect(page.locator(".patch-box")).to_be_visible()
    seen.check_for_all()


def test_the_table_sorts_by_keyboard(job):
    seen, _, answer, _ = job
    page = seen.page
    weeds = _covers(answer, "weed")
    head = page.get_by_role("columnheader", name="Weed cover")
    expect(head).to_have_attribute("aria-sort", "descending")
    assert _rows(page) == sorted(weeds, key=weeds.get, reverse=True)
    head.get_by_role("button").press("Enter")
    expect(head).to_have_attribute("aria-sort", "ascending")
    assert _rows(page) == sorted(weeds, key=weeds.get)
    page.get_by_role("columnheader", name="Photo").get_by_role("button").press(" ")
    assert _rows(page) == sorted(weeds)
    assert page.locator("th[aria-sort]").count() == 1


def test_downloads_are_the_files_of_the_service(job, server):
    seen, job_id, answer, _ = job
    page = seen.page
    for name, path in (("Table (CSV)", "csv"), ("Masks (zip)", "masks.zip")):
        with page.expect_download() as download:
            page.get_by_role("link", name=name).click()
        with server.client() as client:
            expected = client.get(f"/jobs/{job_id}/results/{path}").content
        assert Path(download.value.path()).read_bytes() == expected
        if path == "csv":
            rows = list(csv.DictReader(io.StringIO(expected.decode())))
            assert {row["photo"] for row in rows} == {p["photo"] for p in answer["photos"]}
    with page.context.expect_page() as report:
        page.get_by_role("link", name="Report").click()
    assert "Weed" in report.value.title()
    report.value.close()


def test_run_lengths_are_read_as_the_service_writes_them(job):
    seen, _, _, _ = job
    read = """async ([rle, width, height]) => {
      const { classMap } = await import("/web/classes.js");
      return [...classMap([{ id: 3, rle }], width, height)];
    }"""
    rng = np.random.default_rng(2)
    for size in ((1, 1), (7, 5), (61, 90)):
        for share in (0.0, 0.1, 0.9, 1.0):
            mask = rng.random(size) < share
            drawn = seen.page.evaluate(read, [to_coco(mask), size[1], size[0]])
            assert np.array_equal(np.reshape(drawn, size), 3 * mask)
    blocks = np.kron(rng.random((20, 30)) < 0.3, np.ones((4, 4), bool))
    drawn = seen.page.evaluate(read, [to_coco(blocks), 30, 20])
    assert np.array_equal(np.reshape(drawn, (20, 30)), 3 * blocks[2::4, 2::4])


def test_covers_are_written_as_in_the_report(job):
    seen, _, _, _ = job
    shares = [0.0, 0.00001, 0.0001, 0.004, 0.00999, 0.01, 0.1234, 0.5, 0.9994, 0.9996, 1.0]
    write = "async (shares) => shares.map((await import('/web/format.js')).percent)"
    assert seen.page.evaluate(write, shares) == [percent(share) for share in shares]


def test_many_species_have_colours_of_their_own(job):
    seen, _, _, _ = job
    give = "async (rows) => (await import('/web/classes.js')).withColours(rows)"
    roles = ["background", "crop", *["weed"] * 12]
    rows = [{"role": role, "colour": f"#0000{i:02x}"} for i, role in enumerate(roles)]
    found = [row["colour"] for row in seen.page.evaluate(give, rows)]
    assert found[:3] == ["#000000", "#009e73", "#d55e00"]
    assert len(set(found)) == len(rows)


# --- for everybody -----------------------------------------------------------------------------


def test_every_view_fits_a_phone(browser, server, job):
    _, job_id, _, _ = job
    seen = Watched(browser, server.url, width=360, height=740)
    for route in ("", "#/history", f"#/jobs/{job_id}", "#/jobs/nothing", "#/nowhere"):
        seen.open(route)
        if job_id in route:
            seen.page.get_by_role("link", name="Table (CSV)").wait_for()
            seen.page.locator(".patches tbody tr").first.wait_for()
        if route == "#/jobs/nothing":
            expect(seen.page.get_by_role("alert")).to_contain_text("There is no such job.")
        assert seen.page.evaluate("document.documentElement.scrollWidth") == 360, route
        assert seen.page.evaluate("probes.small()") == [], route
        seen.check_for_all()
    seen.check("404 (Not Found)")
    seen.context.close()


def test_photos_are_chosen_and_sent_by_keyboard_alone(browser, server, photos):
    seen = Watched(browser, server.url)
    page = seen.page
    seen.open()
    focused = []
    while focused[-1:] != ["resolution"]:
        assert len(focused) < 9, focused
        page.keyboard.press("Tab")
        name, outline = page.evaluate("probes.focus()")
        focused.append(name)
        assert outline == "solid 3px", name
    assert focused == [
        "Skip to the content",
        "weedseg",
        "New photos",
        "Past uploads",
        "files",
        "resolution",
    ]
    page.get_by_label("Choose photos").set_input_files(photos[1])
    expect(page.locator("#announcer")).to_have_text("1\u00a0file chosen.")
    page.get_by_label("Ground resolution").fill("-1")
    page.keyboard.press("Enter")
    expect(page.get_by_label("Ground resolution")).to_be_focused()
    expect(page.locator("#resolution-wrong")).to_contain_text("from 0.001 to 1000")
    page.get_by_label("Ground resolution").fill("")
    page.keyboard.press("Enter")
    page.get_by_role("link", name="Table (CSV)").wait_for(timeout=60_000)
    expect(page.locator("#announcer")).to_have_text("The results are here.")
    assert "m²" not in page.locator("main").inner_text(), "areas need the ground resolution"
    page.get_by_role("link", name="Past uploads").click()
    expect(page.get_by_role("heading", name="Past uploads")).to_be_focused()
    entries = page.locator(".jobs li")
    entries.first.wait_for()
    before = entries.count()
    entries.first.get_by_role("button", name="Delete plot-2.jpg").press("Enter")
    page.get_by_role("dialog").get_by_role("button", name="Keep").press("Enter")
    assert entries.count() == before
    entries.first.get_by_role("button", name="Delete plot-2.jpg").press("Enter")
    page.get_by_role("dialog").get_by_role("button", name="Delete").press("Enter")
    expect(entries).to_have_count(before - 1)
    with server.client() as client:
        assert len(client.get("/jobs").json()["jobs"]) == before - 1
    seen.check()
    seen.context.close()


def test_what_is_dropped_is_looked_at_first(browser, server):
    seen = Watched(browser, server.url)
    page = seen.page
    seen.open()
    drop = """(names) => {
      const transfer = new DataTransfer();
      for (const name of names) transfer.items.add(new File(["x"], name, { lastModified: 1 }));
      const event = { dataTransfer: transfer, bubbles: true, cancelable: true };
      document.querySelector("main").dispatchEvent(new DragEvent("drop", event));
    }"""
    page.evaluate(drop, ["plot.JPG", "farm.zip", "notes.txt"])
    expect(page.locator(".files .name")).to_have_text(["plot.JPG", "farm.zip"])
    expect(page.locator(".warning")).to_contain_text("notes.txt: not a photo that can be read here")
    page.evaluate(drop, ["plot.JPG"])
    page.get_by_role("button", name="Remove farm.zip").press("Enter")
    expect(page.get_by_role("button", name="Analyse 1")).to_be_enabled()
    page.get_by_role("button", name="Clear the list").click()
    expect(page.get_by_role("button", name="Analyse photos")).to_be_disabled()
    seen.check()
    seen.context.close()


# --- networks and keys -------------------------------------------------------------------------


def test_an_upload_goes_on_after_a_dropped_connection_and_a_reload(browser, server, tmp_path):
    big = tmp_path / "big.jpg"
    big.write_bytes(np.random.default_rng(0).bytes(9_000_000))
    with Wire(server.url) as wire:
        seen = Watched(browser, wire.url)
        page = seen.page
        sent = []
        page.on("request", lambda request: sent.append(request.headers))

        def choose():
            page.get_by_label("Choose photos").set_input_files(big)
            page.get_by_role("button", name="Analyse 1").click()

        def starts():
            return [int(headers["upload-offset"]) for headers in sent if "upload-offset" in headers]

        def wait_for(happens):
            for _ in range(400):
                if happens():
                    return
                page.wait_for_timeout(50)
            pytest.fail("the upload does not go on")

        seen.open()
        wire.cut_at, wire.bytes_per_s = 3_000_000, 8e6
        choose()
        expect(page.locator(".files")).to_contain_text("Connection interrupted")
        wait_for(lambda: starts()[-1] > 0)
        again = starts()[-1]
        assert 1_000_000 < again < 4_000_000, "what arrived before the cut is not sent again"
        wait_for(
            lambda: page.locator(".files progress").evaluate("(bar) => bar.value") > again + 1e6
        )
        page.get_by_role("button", name="Cancel upload").click()
        expect(page.get_by_role("button", name="Analyse 1")).to_be_enabled()
        wire.bytes_per_s = None
        before = len(starts())
        page.reload()
        choose()
        page.wait_for_url("**/#/jobs/*")
        assert all(start > again for start in starts()[before:]), "nor is it after a reload"
        assert sum("upload-length" in headers for headers in sent) == 1
        problem = page.locator(".problem")
        expect(problem).to_contain_text("big.jpg: no photo in it", timeout=30_000)
        seen.check("net::ERR_", "423 (Locked)", "409 (Conflict)")  # Chromium sends it again
        seen.context.close()


def test_a_key_opens_the_page_and_signing_out_closes_it(browser, server):
    """The last test of this server: from its first key on it asks for one."""
    database = Database.open(server.data, "")
    key = KeyStore(database).make("page", "north-farm", ["jobs", "predict"])
    database.close()
    time.sleep(NONE_HOLDS_S)  # so long it may be believed that there is none
    seen = Watched(browser, server.url)
    page = seen.page
    seen.open()
    field = page.get_by_label("API key")
    expect(page.get_by_role("navigation")).to_be_hidden()
    seen.check_for_all()
    for wrong in ("weedseg_no_key", "schlüssel\u2019"):
        field.fill(wrong)
        field.press("Enter")
        expect(page.get_by_role("alert")).to_contain_text("key")
        expect(field).to_be_focused()
    field.fill(f" {key}\n")
    field.press("Enter")
    expect(page.locator("#who")).to_contain_text("Signed in as north-farm")
    cookie = next(c for c in seen.context.cookies() if c["name"] == "weedseg_session")
    assert (cookie["httpOnly"], cookie["sameSite"]) == (True, "Strict")
    assert key not in page.content()
    assert key not in page.evaluate("JSON.stringify({...localStorage, ...sessionStorage})")
    page.reload()
    page.get_by_role("link", name="Past uploads").click()
    expect(page.get_by_text("Nothing here yet")).to_be_visible()
    seen.check_for_all()
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_label("API key")).to_be_visible()
    assert [c for c in seen.context.cookies() if c["name"] == "weedseg_session"] == []
    seen.check("401 (Unauthorized)")
    seen.context.close()
    with httpx.Client(base_url=server.url, cookies={cookie["name"]: cookie["value"]}) as client:
        assert client.get("/jobs").status_code == 401
