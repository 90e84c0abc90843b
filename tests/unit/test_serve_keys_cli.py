"""``weedseg keys``: make, list, revoke."""

import re
import time

import pytest

from weedseg.cli import main
from weedseg.serve.database import Database
from weedseg.serve.keys import KeyStore


@pytest.fixture
def call(tmp_path, capsys):
    """Run a verb of ``weedseg keys`` on a data folder; return code, output, errors."""

    def run(*arguments):
        code = main(["keys", *arguments, "--data", str(tmp_path / "data")])
        return (code, *capsys.readouterr())

    return run


def _verify(tmp_path, key):
    database = Database.open(tmp_path / "data")
    principal = KeyStore(database).verify(key)
    database.close()
    return principal


def test_a_key_is_shown_once_alone_on_standard_output(call, tmp_path):
    code, out, err = call("make", "--name", "Tablet 1", "--owner", "north-farm")
    assert code == 0
    assert re.fullmatch(r"weedseg_[0-9a-f]{12}_[\w-]{43}\n", out)
    assert "only its hash is stored" in err
    principal = _verify(tmp_path, out.strip())
    assert (principal.owner, principal.scopes) == ("north-farm", {"predict", "jobs"})
    _, listed, _ = call("list")
    assert out.strip().split("_", 2)[2] not in listed


def test_the_list_tells_the_state_of_each_key(call, tmp_path):
    made = [
        call("make", "--name", name, "--owner", "farm", "--scopes", "predict", "--days", days)[1]
        for name, days in (("lasting", "0"), ("guest", "30"), ("lost", "0"))
    ]
    _verify(tmp_path, made[0].strip())
    assert call("revoke", made[2].split("_")[1])[0] == 0
    _, out, _ = call("list")
    lines = out.splitlines()
    today = time.strftime("%Y-%m-%d", time.gmtime())
    assert len(lines) == 4
    assert re.search(rf"farm +predict +{today} +{today} +good +lasting$", lines[1])
    assert re.search(rf"farm +predict +{today} +never +until \d{{4}}-\d\d-\d\d +guest$", lines[2])
    assert re.search(rf"{today} +never +revoked {today} +lost$", lines[3])
    assert _verify(tmp_path, made[2].strip()) is None


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["make", "--name", "a", "--owner", "North Farm"], "a-z, 0-9 and -"),
        (["make", "--name", "a", "--owner", "farm", "--scopes", "root"], "scopes root"),
        (["make", "--name", "a", "--owner", "farm", "--scopes", " , "], "scopes empty"),
        (["list"], "holds no weedseg.sqlite"),
        (["revoke", "0123"], "holds no weedseg.sqlite"),
    ],
)
def test_mistakes_end_with_one_sentence(call, arguments, sentence):
    code, out, err = call(*arguments)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert sentence in err


def test_an_unknown_id_is_told(call):
    call("make", "--name", "a", "--owner", "farm")
    code, _, err = call("revoke", "0123")
    assert code == 2
    assert "no key has the id 0123" in err
