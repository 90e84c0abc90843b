"""Every route x two tenants: no read and no write across the border, and no route left out.

The table below is compared with the routes of the real app, so a new route fails here until
somebody has said what another tenant gets from it.
"""

import base64
import hashlib
import json
from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest
from colour_field import random_squares, write_field
from fastapi.routing import iter_route_contexts
from fastapi.testclient import TestClient
from job_place import Place, field_photo
from sqlalchemy import select

from weedseg.serve.app import create_app
from weedseg.serve.database import Base
from weedseg.serve.job_schemas import MapFile
from weedseg.serve.keys import SCOPES, KeyStore
from weedseg.serve.routes.jobs import Kind

PHOTO = field_photo()
SECRET_NAME = "north-farm-secret-plot.png"
TUS = {"Tus-Resumable": "1.0.0"}
PIECE = {**TUS, "Upload-Offset": "0", "Content-Type": "application/offset+octet-stream"}


PRESCRIPTION = "?threshold=0.02&rate=200&force=true"


@dataclass
class Request:
    """A request to one route; path parameters are filled in from tenant A's things."""

    headers: dict[str, str] = field(default_factory=dict)
    content: bytes | None = None
    uses: str = "done"
    """Which of A's things: ``done`` (finished upload and job), ``map`` (the same of a mosaic) or
    ``fresh`` (just begun)."""
    query: str = ""
    options: tuple[dict[str, str], ...] = ({},)
    """Further values of path parameters; the request is sent once for each."""


OWNED = {
    "GET /v1/uploads/{upload_id}": Request(),
    "HEAD /v1/uploads/{upload_id}": Request(TUS),
    "PATCH /v1/uploads/{upload_id}": Request(PIECE, b"abc", "fresh"),
    "DELETE /v1/uploads/{upload_id}": Request(TUS, uses="fresh"),
    "GET /jobs/{job_id}": Request(),
    "GET /jobs/{job_id}/photos": Request(),
    "GET /jobs/{job_id}/results": Request(),
    "GET /jobs/{job_id}/results/csv": Request(),
    "GET /jobs/{job_id}/results/masks.zip": Request(),
    "GET /jobs/{job_id}/results/report.html": Request(),
    "GET /jobs/{job_id}/results/map/{name}": Request(
        uses="map", options=tuple({"name": name.value} for name in MapFile)
    ),
    "GET /jobs/{job_id}/results/map/prescription": Request(uses="map", query=PRESCRIPTION),
    "GET /jobs/{job_id}/results/map/prescription.zip": Request(uses="map", query=PRESCRIPTION),
    "GET /jobs/{job_id}/photos/{number}/{kind}": Request(
        options=tuple({"number": "1", "kind": kind.value} for kind in Kind)
    ),
    "DELETE /jobs/{job_id}": Request(uses="fresh"),
}
"""A gets a good answer, B gets the same 404 as for something that never was."""

LISTS = {"GET /v1/uploads", "GET /jobs"}
"""Each tenant sees their own."""

SEPARATE = {
    "POST /v1/uploads": "makes a thing of one's own",
    "POST /processes/weed-map/execution": "takes uploads of one's own only",
    "POST /v1/session": "signs oneself in",
    "GET /v1/session": "tells who one is",
    "DELETE /v1/session": "signs oneself out",
    "POST /v1/predict": "keeps nothing",
    "POST /v2/models/{name}/infer": "keeps nothing",
}
"""Routes with a test of their own below."""

SHARED = {
    "GET /processes": "what the service can do",
    "GET /processes/weed-map": "what the service can do",
    "GET /v1/models": "models belong to the service",
    "GET /v1/models/{name}": "models belong to the service",
    "POST /v1/models/{name}/promote": "for the scope 'models' only, which concerns everybody",
    "POST /v1/models/default/rollback": "for the scope 'models' only, which concerns everybody",
    "GET /v2/models/{name}": "models belong to the service",
    "GET /v2/models/{name}/ready": "models belong to the service",
}
"""The same for all tenants, with a key."""

PUBLIC = {
    "GET /healthz": "state of the service",
    "GET /readyz": "state of the service",
    "GET /metrics": "sums over all tenants, to programs on this machine",
    "GET /v2": "name and version",
    "GET /v2/health/live": "state of the service",
    "GET /v2/health/ready": "state of the service",
    "OPTIONS /v1/uploads": "what the protocol can do",
    "GET /openapi.json": "description of the service, on loopback only",
    "HEAD /openapi.json": "description of the service, on loopback only",
    "DELETE /v1/session": "without a session, nothing happens",
    "GET /": "the web page",
    "HEAD /": "the web page",
    "MOUNT /web": "files of the web page",
}
"""The same for everybody, without a key."""


class World:
    """The real app with a finished job of tenant A, and clients of both tenants."""

    def __init__(self, folder):
        self.place = Place(folder, requests_per_minute=1_000_000)
        self.app = create_app(self.place.settings)
        self.keys = KeyStore(self.place.database)
        everything = [*SCOPES]
        self.key_a, self.key_b = (
            self.keys.make("key", owner, everything) for owner in ("tenant-a", "tenant-b")
        )
        self.nobody = self._client()
        self.a, self.b = self._client(self.key_a), self._client(self.key_b)

    def _client(self, key=""):
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        url, address = "http://127.0.0.1:8000", ("127.0.0.1", 50000)
        return TestClient(self.app, base_url=url, client=address, headers=headers)

    def fill(self, mosaic):
        """Let A work."""
        self.done = SimpleNamespace(**self.begin(PHOTO), number="1", kind="overlay")
        self.map = SimpleNamespace(**self.begin(mosaic, cell_m=0.1), number="1", kind="overlay")
        self.place.work()
        self.name = self.place.models.default.name
        for thing in (self.done, self.map):
            assert self.a.get(f"/jobs/{thing.job_id}").json()["status"] == "successful"

    def thing(self, route):
        """Return A's finished thing that a route is about."""
        return self.map if OWNED[route].uses == "map" else self.done

    def begin(self, content, **inputs):
        """Make an upload and a job of another one, through HTTP, as A."""
        complete = upload(self.a, SECRET_NAME, content)
        answer = execute(self.a, [complete], inputs)
        assert answer.status_code == 201, answer.text
        open_upload = announce(self.a, SECRET_NAME, 3)
        return {"upload_id": open_upload, "job_id": answer.json()["jobID"]}

    def path(self, route, thing, more):
        template = route.partition(" ")[2]
        return template.format(**{"name": self.name, **vars(thing), **more})

    def marks(self):
        """What must never be seen by B."""
        with self.place.database.read() as session:
            rows = session.execute(select(Base.metadata.tables["uploads"])).mappings().all()
            ids = {row["id"] for row in rows if row["owner"] == "tenant-a"}
            jobs = session.execute(select(Base.metadata.tables["jobs"])).mappings().all()
            ids |= {row["id"] for row in jobs if row["owner"] == "tenant-a"}
        return {*ids, "north-farm-secret", "tenant-a"}

    def state(self):
        """All rows and all of A's files, as they are now."""
        rows = {}
        with self.place.database.read() as session:
            for table in Base.metadata.sorted_tables:
                columns = [column for column in table.columns if column.name != "last_used_s"]
                rows[table.name] = sorted(map(str, session.execute(select(*columns)).all()))
        folder = self.place.settings.data / "owners" / "tenant-a"
        files = {
            str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in folder.rglob("*")
            if path.is_file()
        }
        return rows, files


def announce(client, name, size):
    shown = base64.b64encode(name.encode()).decode()
    headers = {**TUS, "Upload-Length": str(size), "Upload-Metadata": f"filename {shown}"}
    answer = client.post("/v1/uploads", headers=headers)
    assert answer.status_code == 201, answer.text
    return answer.headers["Location"].rpartition("/")[2]


def upload(client, name, content):
    upload_id = announce(client, name, len(content))
    answer = client.patch(f"/v1/uploads/{upload_id}", headers=PIECE, content=content)
    assert answer.status_code == 204, answer.text
    return upload_id


def execute(client, uploads, inputs=None, **headers):
    body = {"inputs": {"photos": uploads, **(inputs or {})}}
    return client.post("/processes/weed-map/execution", json=body, headers=headers)


def routes_of(app):
    """Every method and path that the app answers; a mounted app counts as one."""
    for route in iter_route_contexts(app.routes):
        for method in sorted(route.methods or {"MOUNT"}):
            yield f"{method} {route.path}"


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    made = World(tmp_path_factory.mktemp("tenants"))
    try:
        with made.nobody:  # runs the app
            field = tmp_path_factory.mktemp("mosaic") / "field.tif"
            made.fill(write_field(field, random_squares(8, 8)).read_bytes())
            yield made
    finally:
        made.place.close()


def _seen(world, answer):
    """Return which of A's marks are in an answer to B, its headers too."""
    text = answer.content.decode("latin-1") + json.dumps(dict(answer.headers))
    return {mark for mark in world.marks() if mark in text}


def _send(client, world, route, thing, more):
    request = OWNED[route]
    path = world.path(route, thing, more) + request.query
    method = route.partition(" ")[0]
    return client.request(method, path, headers=request.headers, content=request.content)


def _without_id(answer):
    headers = {k: v for k, v in answer.headers.items() if k not in ("x-request-id", "date")}
    body = {k: v for k, v in answer.json().items() if k != "request_id"} if answer.content else {}
    return answer.status_code, headers, body


# --- the table is complete ---------------------------------------------------------------------


def test_every_route_of_the_app_is_in_the_table(world):
    told = {*OWNED, *LISTS, *SEPARATE, *SHARED, *PUBLIC}
    real = {*routes_of(world.app)}
    assert sorted(real - told) == [], "say above what another tenant gets from these routes"
    assert sorted(told - real) == [], "these routes are gone"


def test_every_row_has_an_owner():
    """A table without the column hangs by a foreign key on one that has it, or holds no things."""
    free = {"weedseg_schema"}
    for table in Base.metadata.sorted_tables:
        parents = {key.column.table.name for key in table.foreign_keys}
        owned = "owner" in table.columns or parents & {"jobs", "api_keys"}
        assert owned or table.name in free, table.name


# --- owned things ------------------------------------------------------------------------------


@pytest.mark.parametrize("route", OWNED)
def test_another_tenant_gets_what_somebody_gets_for_a_thing_that_never_was(world, route):
    more_options = OWNED[route].options
    thing = world.thing(route)
    never = SimpleNamespace(**{**vars(thing), "upload_id": "A" * 22, "job_id": "A" * 22})
    before = world.state()
    for more in more_options:
        refused = _send(world.b, world, route, thing, more)
        assert refused.status_code == 404
        assert _seen(world, refused) == set()
        assert _without_id(refused) == _without_id(_send(world.b, world, route, never, more))
    assert world.state() == before
    mine = SimpleNamespace(**world.begin(PHOTO)) if OWNED[route].uses == "fresh" else thing
    for more in more_options:
        allowed = _send(world.a, world, route, mine, more)  # the request itself is a good one
        assert 200 <= allowed.status_code < 300, allowed.text


@pytest.mark.parametrize("route", OWNED)
def test_no_path_leads_around_the_border(world, route):
    for way in ("../../tenant-a/{kind}s/{id}", "..%2f..%2ftenant-a%2f{kind}s%2f{id}", "{id}%00"):
        values = {
            f"{kind}_id": way.format(kind=kind, id=getattr(world.thing(route), f"{kind}_id"))
            for kind in ("upload", "job")
        }
        thing = SimpleNamespace(**{**vars(world.thing(route)), **values})
        for more in OWNED[route].options:
            answer = _send(world.b, world, route, thing, more)
            assert answer.status_code in (404, 405, 422), answer.text
            assert _seen(world, answer) - {"tenant-a"} <= _echoed(world, answer)


def _echoed(world, answer):
    """What the answer repeats of B's own request, which B knows already."""
    return {mark for mark in world.marks() if mark in str(answer.request.url)}


@pytest.mark.parametrize("route", sorted(LISTS))
def test_lists_hold_ones_own_things_only(world, route):
    path = route.partition(" ")[2]
    own = upload(world.b, "of-b.png", PHOTO)
    answer = world.b.get(path, params={"limit": 1000})
    assert answer.status_code == 200
    assert _seen(world, answer) == set()
    assert ("of-b.png" in answer.text) == (path == "/v1/uploads")
    assert world.done.upload_id in world.a.get("/v1/uploads", params={"limit": 1000}).text
    assert world.done.job_id in world.a.get("/jobs", params={"limit": 1000}).text
    assert own not in world.a.get(path, params={"limit": 1000}).text


# --- routes that make or tell things of one's own ----------------------------------------------


def test_a_job_takes_no_upload_of_another_tenant(world):
    complete = upload(world.a, SECRET_NAME, PHOTO)
    own = upload(world.b, "of-b.png", PHOTO)
    before = world.state()
    for uploads in ([complete], [own, complete], [world.done.upload_id]):
        answer = execute(world.b, uploads)
        assert answer.status_code == 404, answer.text
        assert _seen(world, answer) == set()
    assert world.state() == before
    assert execute(world.b, [own]).status_code == 201


def test_the_same_idempotency_key_means_two_jobs_to_two_tenants(world):
    of_a = execute(world.a, [upload(world.a, SECRET_NAME, PHOTO)], **{"Idempotency-Key": "1"})
    of_b = execute(world.b, [upload(world.b, "of-b.png", PHOTO)], **{"Idempotency-Key": "1"})
    assert (of_a.status_code, of_b.status_code) == (201, 201)
    assert of_a.json()["jobID"] != of_b.json()["jobID"]
    assert _seen(world, of_b) == set()


def test_what_one_makes_belongs_to_oneself(world):
    made = announce(world.b, "of-b.png", 10)
    assert world.b.get(f"/v1/uploads/{made}").status_code == 200
    assert world.a.get(f"/v1/uploads/{made}").status_code == 404


def test_signing_in_and_out_concerns_oneself(world):
    browsers = [world._client(), world._client()]
    for browser, key in zip(browsers, (world.key_a, world.key_b)):
        assert browser.post("/v1/session", headers={"X-API-Key": key}).status_code == 201
    assert [browser.get("/v1/session").json()["owner"] for browser in browsers] == [
        "tenant-a",
        "tenant-b",
    ]
    assert browsers[1].get(f"/jobs/{world.done.job_id}").status_code == 404
    assert browsers[0].get(f"/jobs/{world.done.job_id}").status_code == 200
    assert browsers[1].delete("/v1/session").status_code == 204
    assert browsers[0].get("/v1/session").json()["owner"] == "tenant-a"
    assert browsers[1].get("/v1/session").status_code == 401


def test_single_photos_leave_nothing_behind(world):
    before = world.state()
    answer = world.a.post("/v1/predict", files={"file": (SECRET_NAME, PHOTO)})
    assert answer.status_code == 200, answer.text
    other = world.b.post("/v1/predict", files={"file": ("of-b.png", PHOTO)})
    assert other.json()["photo"] == "of-b.png"
    assert _seen(world, other) == set()
    side = 64
    tensor = {"name": "images", "datatype": "FP32", "shape": [1, 3, side, side]}
    body = {"id": SECRET_NAME, "inputs": [{**tensor, "data": [0.5] * (3 * side * side)}]}
    path = f"/v2/models/{world.name}/infer"
    assert world.a.post(path, json=body).status_code == 200
    answer = world.b.post(path, json={**body, "id": "of-b"})
    assert answer.status_code == 200
    assert _seen(world, answer) == set()
    assert world.state() == before


# --- routes that are the same for all ----------------------------------------------------------


@pytest.mark.parametrize("route", sorted(r for r in {*SHARED, *PUBLIC} if r.startswith("GET ")))
def test_shared_routes_tell_nothing_of_a_tenant(world, route):
    client = world.nobody if route in PUBLIC else world.b
    answer = client.get(world.path(route, world.done, {}))
    assert answer.status_code == 200, answer.text
    assert _seen(world, answer) == set()


def test_figures_are_shown_elsewhere_with_the_scope_admin_only(world):
    weak = world.keys.make("key", "tenant-b", ["predict", "jobs", "models"])
    url = "http://127.0.0.1:8000"
    for address, headers in (
        ("192.0.2.7", {}),
        ("127.0.0.1", {"X-Forwarded-For": "192.0.2.7"}),
        ("127.0.0.1", {"Host": "elsewhere.example"}),
    ):
        client = TestClient(world.app, base_url=url, client=(address, 50000), headers=headers)
        assert client.get("/metrics").status_code == 401
        for key, status in ((weak, 403), (world.key_b, 200), ("wrong", 401)):
            answer = client.get("/metrics", headers={"X-API-Key": key})
            assert answer.status_code == status, answer.text
            assert _seen(world, answer) == set()


def test_models_are_changed_with_the_scope_for_it_only(world):
    key = world.keys.make("key", "tenant-b", ["predict", "jobs", "admin"])
    for path in (f"/v1/models/{world.name}/promote", "/v1/models/default/rollback"):
        assert world.b.post(path, headers={"Authorization": f"Bearer {key}"}).status_code == 403


@pytest.mark.parametrize("route", sorted({*OWNED, *LISTS, *SEPARATE, *SHARED} - {*PUBLIC}))
def test_nobody_gets_in_without_a_key(world, route):
    before = world.state()
    method = route.partition(" ")[0]
    answer = world.nobody.request(method, world.path(route, world.done, {}), headers=PIECE)
    assert answer.status_code == 401, answer.text
    assert _seen(world, answer) == set()
    assert world.state() == before
