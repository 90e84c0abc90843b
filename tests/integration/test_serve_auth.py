"""Who may call a route: headers, cookie, open mode, and what the network may see."""

from types import SimpleNamespace
from typing import Annotated

import pytest
from fastapi import Depends, FastAPI
from fastapi.testclient import TestClient

from weedseg.cli import main
from weedseg.errors import ConfigError
from weedseg.serve.auth import COOKIE, Principal, is_loopback, refuse_open_network, signed_in
from weedseg.serve.database import Database
from weedseg.serve.keys import KeyStore
from weedseg.serve.limits import Limits
from weedseg.serve.problems import install_problem_handlers
from weedseg.serve.routes import session
from weedseg.serve.settings import Settings

HERE = "http://127.0.0.1:8000"
SAME_MACHINE = ("127.0.0.1", 50000)


class Service:
    """Keys, limits and the session route behind HTTP, without models and jobs."""

    def __init__(self, data, **settings):
        self.database = Database.open(data)
        self.keys = KeyStore(self.database)
        self.settings = Settings(data=data, **settings)
        limits = Limits(data, self.settings.requests_per_minute, self.settings.quota_bytes)
        self.app = FastAPI()
        self.app.state.services = SimpleNamespace(
            settings=self.settings, keys=self.keys, limits=limits
        )
        self.app.include_router(session.router)
        install_problem_handlers(self.app)

        @self.app.get("/jobs")
        @self.app.post("/jobs", operation_id="post_jobs")
        def jobs(who: Annotated[Principal, Depends(signed_in("jobs"))]) -> str:
            return who.owner

    def client(self, address=SAME_MACHINE, url=HERE, **headers):
        return TestClient(self.app, base_url=url, client=address, headers=headers)


@pytest.fixture
def make_service(tmp_path):
    made = []

    def make(**settings):
        made.append(Service(tmp_path / f"data{len(made)}", **settings))
        return made[-1]

    yield make
    for each in made:
        each.database.close()


@pytest.fixture
def service(make_service):
    return make_service()


@pytest.fixture
def key(service):
    return service.keys.make("phone", "north-farm", ["jobs", "predict"])


def _code(client, **options):
    return client.get("/jobs", **options).status_code


def test_both_headers_carry_a_key(service, key):
    for headers in ({"Authorization": f"Bearer {key}"}, {"X-API-Key": key}):
        answer = service.client(("10.0.0.9", 1), "http://farm.example").get(
            "/jobs", headers=headers
        )
        assert (answer.status_code, answer.json()) == (200, "north-farm")


def test_without_a_good_key_the_answer_is_401_as_a_problem(service, key):
    wrong = [{}, {"X-API-Key": key + "x"}, {"Authorization": f"Basic {key}"}]
    wrong += [{"Authorization": f"Bearer {key[:-1]}"}, {"Authorization": key}, {"X-API-Key": ""}]
    for headers in wrong:
        answer = service.client().get("/jobs", headers=headers)
        assert answer.status_code == 401
        assert answer.headers["WWW-Authenticate"] == "Bearer"
        assert answer.headers["Content-Type"] == "application/problem+json"
        assert answer.json()["title"] == "Not signed in"


def test_a_key_in_the_query_or_body_counts_for_nothing(service, key):
    client = service.client()
    assert _code(client, params={"key": key, "api_key": key, "X-API-Key": key}) == 401
    assert client.post("/v1/session", json={"key": key}).status_code == 401


def test_a_missing_scope_is_403(service):
    reader = service.keys.make("robot", "north-farm", ["predict"])
    answer = service.client().get("/jobs", headers={"X-API-Key": reader})
    assert (answer.status_code, answer.json()["detail"]) == (403, "this key lacks the scope 'jobs'")


def test_signing_in_gives_a_cookie_that_scripts_and_other_sites_do_not_get(service, key):
    client = service.client()
    answer = client.post("/v1/session", headers={"X-API-Key": key})
    assert answer.status_code == 201
    assert answer.json() == {
        "owner": "north-farm",
        "scopes": ["jobs", "predict"],
        "key_needed": True,
    }
    cookie = answer.headers["Set-Cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert "path=/" in cookie
    assert "secure" not in cookie  # plain HTTP on this machine
    assert key not in cookie
    assert answer.headers["Cache-Control"] == "no-store"
    assert client.get("/v1/session").json()["owner"] == "north-farm"
    assert _code(client) == 200


@pytest.mark.parametrize(
    ("url", "headers"),
    [("https://farm.example", {}), ("http://farm.example", {"X-Forwarded-Proto": "https"})],
)
def test_behind_https_the_cookie_is_secure(service, key, url, headers):
    client = service.client(("10.0.0.9", 1), url)
    answer = client.post("/v1/session", headers={"X-API-Key": key, **headers})
    assert "; Secure" in answer.headers["Set-Cookie"]


def test_signing_out_ends_the_session_on_the_server_too(service, key):
    client = service.client()
    client.post("/v1/session", headers={"X-API-Key": key})
    token = client.cookies[COOKIE]
    assert client.delete("/v1/session").status_code == 204
    assert COOKIE not in client.cookies
    assert _code(client, headers={"Cookie": f"{COOKIE}={token}"}) == 401
    assert client.delete("/v1/session").status_code == 204


def test_a_revoked_key_ends_its_sessions(service, key):
    client = service.client()
    client.post("/v1/session", headers={"X-API-Key": key})
    service.keys.revoke(key.split("_")[1])
    assert _code(client) == 401


def test_a_wrong_key_beside_a_good_cookie_is_refused(service, key):
    client = service.client()
    client.post("/v1/session", headers={"X-API-Key": key})
    assert _code(client, headers={"X-API-Key": "wrong"}) == 401


FOREIGN = [
    {"Origin": "http://evil.example"},
    {"Origin": "http://127.0.0.1:3000"},  # another program's page on this machine
    {"Origin": "null"},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site", "Origin": HERE},
]
OWN = [{}, {"Origin": HERE}, {"Sec-Fetch-Site": "same-origin"}, {"Sec-Fetch-Site": "none"}]


def _is_allowed(client, headers):
    return client.post("/jobs", headers=headers).status_code == 200


def test_another_web_page_cannot_act_with_the_cookie(service, key):
    client = service.client()
    client.post("/v1/session", headers={"X-API-Key": key})
    assert [headers for headers in FOREIGN if _is_allowed(client, headers)] == []
    assert [headers for headers in OWN if not _is_allowed(client, headers)] == []
    assert _code(client, headers=FOREIGN[0]) == 200  # reading: its answer stays in the browser
    assert _is_allowed(service.client(), {**FOREIGN[0], "X-API-Key": key})  # nobody's cookie


def test_open_mode_serves_this_machine_and_nobody_else(service):
    assert service.client().get("/jobs").json() == "local"
    assert service.client().get("/v1/session").json()["key_needed"] is False
    assert service.client(("::1", 1), "http://localhost:8000").get("/jobs").json() == "local"
    assert _code(service.client(("10.0.0.9", 1))) == 401
    assert _code(service.client(url="http://evil.example")) == 401  # a name bound to 127.0.0.1
    assert _code(service.client(url="http://127.0.0.1.evil.example")) == 401
    for name in ("X-Forwarded-For", "Forwarded", "X-Real-IP", "X-Forwarded-Host"):
        assert _code(service.client(), headers={name: "127.0.0.1"}) == 401  # a proxy is in front


def test_another_web_page_cannot_act_in_open_mode(service):
    client = service.client()
    assert [headers for headers in FOREIGN if _is_allowed(client, headers)] == []
    assert [headers for headers in OWN if not _is_allowed(client, headers)] == []


def test_the_first_key_ends_open_mode_at_once_and_for_good(service):
    client = service.client()
    assert _code(client) == 200
    key = service.keys.make("phone", "local", ["jobs"])
    assert _code(client) == 401
    assert client.get("/jobs", headers={"X-API-Key": key}).json() == "local"
    service.keys.revoke(key.split("_")[1])
    assert _code(client) == 401


def test_a_service_that_listens_to_the_network_is_never_open(make_service):
    service = make_service(host="0.0.0.0")
    assert _code(service.client()) == 401
    with pytest.raises(ConfigError, match=r"0\.0\.0\.0 can be reached from other machines") as no:
        refuse_open_network("0.0.0.0", service.keys)
    assert "weedseg keys make" in no.value.remedy
    refuse_open_network("127.0.0.1", service.keys)
    service.keys.make("phone", "farm", ["jobs"])
    refuse_open_network("0.0.0.0", service.keys)


def test_what_loopback_is():
    inside = ["127.0.0.1", "127.8.9.10", "::1", "[::1]", "localhost"]
    outside = ["0.0.0.0", "::", "10.0.0.1", "", "farm", "localhost.example", "127.0.0.1.example"]
    assert [host for host in inside if not is_loopback(host)] == []
    assert [host for host in outside if is_loopback(host)] == []


def test_each_owner_has_a_number_of_requests_per_minute(make_service):
    service = make_service(requests_per_minute=3)
    first, second = (service.keys.make("k", owner, ["jobs"]) for owner in ("a", "b"))
    client = service.client()
    codes = [_code(client, headers={"X-API-Key": first}) for _ in range(5)]
    assert codes == [200, 200, 200, 429, 429]
    answer = client.get("/v1/session", headers={"X-API-Key": first})
    assert answer.status_code == 429
    assert 1 <= int(answer.headers["Retry-After"]) <= 60
    assert _code(client, headers={"X-API-Key": second}) == 200


def test_the_openapi_names_the_three_ways_in(service):
    schemes = service.app.openapi()["components"]["securitySchemes"].values()
    kinds = {(s["type"], s.get("scheme") or s["in"]) for s in schemes}
    assert kinds == {("http", "bearer"), ("apiKey", "header"), ("apiKey", "cookie")}
    answers = service.app.openapi()["paths"]["/v1/session"]["get"]["responses"]
    assert {"200", "401", "403", "429"} <= set(answers)


def test_the_command_refuses_the_network_without_a_key(tmp_path, capsys):
    data = str(tmp_path / "data")
    assert main(["serve", "--host", "0.0.0.0", "--port", "0", "--data", data]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "0.0.0.0 can be reached from other machines" in said
    assert "weedseg keys make" in said
