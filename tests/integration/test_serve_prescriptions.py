"""Prescriptions from a finished map over REST: what is said, handed out and refused."""

import io
import json
import zipfile

import geopandas
import pytest
from colour_field import random_squares, write_field
from fastapi.testclient import TestClient
from job_place import Place, field_photo

from weedseg.maps.validate import validate
from weedseg.serve.app import create_app

ASKED = {"threshold": 0.3, "rate": 200, "force": True}


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    """A client, and the results of a finished map and of a finished job over a photo."""
    place = Place(tmp_path_factory.mktemp("prescriptions"), requests_per_minute=1_000_000)
    field = write_field(tmp_path_factory.mktemp("mosaic") / "field.tif", random_squares(20, 30))
    app = create_app(place.settings)
    with TestClient(app, base_url="http://127.0.0.1:8000", client=("127.0.0.1", 50000)) as client:
        mosaic = place.submit({"field.tif": field.read_bytes()}, "local", cell_m=0.1, crop="maize")
        photo = place.submit({"a.png": field_photo(0)}, "local")
        place.work()
        yield client, f"/jobs/{mosaic}/results", f"/jobs/{photo}/results"
    place.close()


def test_a_prescription_is_worked_out_and_handed_out(service, tmp_path):
    client, results, _ = service
    linked = client.get(results).json()["map"]["prescription"]["href"]
    answer = client.get(linked, params=ASKED)
    assert answer.status_code == 200, answer.text
    told = answer.json()
    assert 0 < told["num_treated"] < told["num_cells"]
    assert 0 < told["treated_m2"] < told["field_m2"]
    assert told["prescribed_l"] == pytest.approx(told["treated_m2"] / 1e4 * 200)
    assert told["broadcast_l"] == pytest.approx(told["field_m2"] / 1e4 * 200)
    assert told["forced"]
    assert told["sentences"]
    packed = client.get(told["files"]["href"])
    assert packed.headers["content-type"] == "application/zip"
    with zipfile.ZipFile(io.BytesIO(packed.content)) as archive:
        archive.extractall(tmp_path)
    for name in ("prescription_shapefile.zip", "prescription.geojson", "TASKDATA.zip"):
        validate(tmp_path / name)
    table = geopandas.read_file(f"zip://{tmp_path / 'prescription_shapefile.zip'}")
    assert set(table["rate"]) == {0.0, 200.0}
    record = json.loads((tmp_path / "prescription.json").read_text(encoding="utf-8"))
    assert record["num_treated"] == told["num_treated"]


def test_wider_wishes_treat_more(service):
    client, results, _ = service

    def treated(**more):
        answer = client.get(f"{results}/map/prescription", params={**ASKED, **more})
        return answer.json()["treated_m2"]

    assert treated(threshold=0.6) < treated() < treated(buffer_m=0.05)
    assert treated(min_patch_m2=1e5) == 0


def test_what_is_not_known_well_enough_is_refused(service):
    client, results, _ = service
    for path in ("map/prescription", "map/prescription.zip"):
        answer = client.get(f"{results}/{path}", params={**ASKED, "force": False})
        assert answer.status_code == 409
        assert "force=true" in answer.json()["detail"]


def test_bad_wishes_are_refused(service):
    client, results, photo = service
    wrong = ({"threshold": 2}, {"rate": 0}, {"rate": "nan"}, {"buffer_m": -1}, {"colour": "red"})
    for more in wrong:
        answer = client.get(f"{results}/map/prescription", params={**ASKED, **more})
        assert answer.status_code == 422, more
    assert client.get(f"{results}/map/prescription").status_code == 422
    assert client.get(f"{photo}/map/prescription", params=ASKED).status_code == 404
