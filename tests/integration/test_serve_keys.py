"""API keys and sessions on both databases."""

import pytest
from sqlalchemy import text

from weedseg.errors import ConfigError, RuntimeUnavailableError
from weedseg.serve.database import Database
from weedseg.serve.keys import COARSE_S, SCOPES, ApiKey, KeyStore, Principal, SignIn

NOW_S = 1_800_000_000.0


class Clock:
    now_s = NOW_S

    def __call__(self):
        return self.now_s


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def database(database_url):
    opened = Database(database_url)
    yield opened
    opened.close()


@pytest.fixture
def keys(database, clock):
    return KeyStore(database, clock)


def _last_used(keys):
    return keys.list_keys()[0].last_used_s


def test_a_key_opens_what_it_was_made_for(keys):
    key = keys.make("phone", "north-farm", ["jobs", "predict"])
    assert keys.verify(key) == Principal("north-farm", frozenset({"predict", "jobs"}))


def test_the_database_holds_no_key_and_no_token(keys, database):
    key = keys.make("phone", "north-farm", ["jobs"])
    token, _ = keys.sign_in(key, hours=1)
    with database.read() as session:
        rows = [
            str(row)
            for table in (ApiKey, SignIn)
            for row in session.execute(text(f"SELECT * FROM {table.__tablename__}"))
        ]
    stored = " ".join(rows)
    assert len(rows) == 2
    assert key.split("_", 2)[2] not in stored
    assert token not in stored


def test_keys_differ_and_are_long(keys):
    made = {keys.make("k", "o", ["jobs"]) for _ in range(20)}
    assert len(made) == 20
    assert {len(key.split("_", 2)[2]) for key in made} == {43}  # 256 bits in base64


def _wrong_keys(key):
    prefix, key_id, secret = key.split("_", 2)
    swapped = secret[:-2] + ("AA" if secret[-2:] != "AA" else "BB")
    yield from ("", "_", "__", "weedseg", "weedseg__", f"weedseg_{key_id}", f"weedseg_{key_id}_")
    yield from (key[:-1], key + "x", f" {key}", key.upper(), secret)
    yield f"{prefix}_{key_id}_{swapped}"
    yield f"other_{key_id}_{secret}"
    yield f"{prefix}_{'0' * 12}_{secret}"
    yield from (f"{prefix}_{key_id}\0_{secret}", f"{key}\0", "weedseg_\ud800_x", "ä" * 5000)
    yield f"{prefix}_' OR 1=1 --_{secret}"


def test_no_other_text_opens_it(keys):
    key = keys.make("phone", "north-farm", ["jobs"])
    wrong = list(_wrong_keys(key))
    assert [text for text in wrong if keys.verify(text) is not None] == []
    assert [text for text in wrong if keys.sign_in(text, 1) is not None] == []
    assert len(wrong) == 20


def test_a_key_ends_when_it_should(keys, clock):
    key = keys.make("guest", "north-farm", ["jobs"], expires_s=NOW_S + 10)
    clock.now_s = NOW_S + 9.9
    assert keys.verify(key) is not None
    clock.now_s = NOW_S + 10
    assert keys.verify(key) is None
    assert keys.sign_in(key, 1) is None


def test_revoking_ends_key_and_sessions_and_no_other(keys):
    first, second = (keys.make(name, "farm", ["jobs"]) for name in ("a", "b"))
    tokens = [keys.sign_in(key, 1)[0] for key in (first, second)]
    assert keys.revoke(first.split("_")[1])
    assert keys.verify(first) is None
    assert keys.verify_sign_in(tokens[0]) is None
    assert keys.verify(second) is not None
    assert keys.verify_sign_in(tokens[1]) is not None


def test_revoking_twice_keeps_the_first_time_and_unknown_ids_are_told(keys, clock):
    key_id = keys.make("a", "farm", ["jobs"]).split("_")[1]
    assert keys.revoke(key_id)
    clock.now_s += 5
    assert keys.revoke(key_id)
    assert keys.list_keys()[0].revoked_s == NOW_S
    assert not keys.revoke("none")


def test_a_revoked_key_does_not_reopen_open_mode(keys, database):
    assert not keys.any_made()
    key = keys.make("a", "farm", ["jobs"])
    assert keys.any_made()
    keys.revoke(key.split("_")[1])
    assert KeyStore(database).any_made()


def test_sessions_end_with_their_hours_or_their_key(keys, clock):
    lasting = keys.make("a", "farm", ["jobs"])
    short = keys.make("b", "farm", ["jobs"], expires_s=NOW_S + 60)
    token, expires_s = keys.sign_in(lasting, hours=2)
    other, other_expires_s = keys.sign_in(short, hours=2)
    assert (expires_s, other_expires_s) == (NOW_S + 7200, NOW_S + 60)
    clock.now_s = NOW_S + 61
    assert keys.verify_sign_in(token) == Principal("farm", frozenset({"jobs"}))
    assert keys.verify_sign_in(other) is None
    clock.now_s = NOW_S + 7200
    assert keys.verify_sign_in(token) is None


def test_signing_out_ends_one_session(keys):
    key = keys.make("a", "farm", ["jobs"])
    first, second = (keys.sign_in(key, 1)[0] for _ in range(2))
    keys.sign_out(first)
    keys.sign_out("never there")
    assert keys.verify_sign_in(first) is None
    assert keys.verify_sign_in(second) is not None


def test_ended_sessions_are_forgotten(keys, clock):
    key = keys.make("a", "farm", ["jobs"])
    keys.sign_in(key, hours=1)
    token, _ = keys.sign_in(key, hours=3)
    clock.now_s += 7200
    assert keys.forget_ended() == 1
    assert keys.forget_ended() == 0
    assert keys.verify_sign_in(token) is not None


def test_a_token_is_no_key_and_a_key_no_token(keys):
    key = keys.make("a", "farm", ["jobs"])
    token, _ = keys.sign_in(key, 1)
    assert keys.verify(token) is None
    assert keys.verify_sign_in(key) is None


def test_the_last_use_is_written_at_most_once_an_hour(keys, clock):
    key = keys.make("a", "farm", ["jobs"])
    assert _last_used(keys) is None
    keys.verify(key)
    assert _last_used(keys) == NOW_S
    clock.now_s = NOW_S + COARSE_S - 1
    keys.verify(key)
    assert _last_used(keys) == NOW_S
    clock.now_s = NOW_S + COARSE_S
    keys.verify(key)
    assert _last_used(keys) == NOW_S + COARSE_S


def test_a_key_counts_though_its_use_cannot_be_written(keys, database, monkeypatch):
    key = keys.make("a", "farm", ["jobs"])

    def locked():
        raise RuntimeUnavailableError("locked", "not", "wait")

    monkeypatch.setattr(database, "begin", locked)
    assert keys.verify(key) is not None


@pytest.mark.parametrize("owner", ["", "North", "a b", "../x", "a" * 41, "ä", "a\n", "a/b", "a.b"])
def test_owners_that_could_leave_their_folder_are_refused(keys, owner):
    with pytest.raises(ConfigError, match="owner"):
        keys.make("k", owner, ["jobs"])
    assert keys.list_keys() == []


@pytest.mark.parametrize(
    ("name", "scopes"), [("", ["jobs"]), ("a\nb", ["jobs"]), ("k", []), ("k", ["jobs", "root"])]
)
def test_other_nonsense_is_refused(keys, name, scopes):
    with pytest.raises(ConfigError):
        keys.make(name, "farm", scopes)
    assert keys.list_keys() == []


def test_scopes_are_told_in_one_order(keys):
    keys.make("k", "farm", [*reversed(SCOPES)])
    assert keys.list_keys()[0].scopes.split(",") == list(SCOPES)
