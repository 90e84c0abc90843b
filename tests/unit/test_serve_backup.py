"""Backup and restore of the data folder: whole and proven, or refused with nothing written."""

import json
import os
import random
import sqlite3
import subprocess
import sys
import threading
import zipfile
from contextlib import closing

import pytest

from weedseg.cli import main
from weedseg.errors import ConfigError, OutputError
from weedseg.serve.backup import LISTING, back_up, restore
from weedseg.serve.database import SQLITE_FILE, Database
from weedseg.serve.keys import KeyStore

DIES_WRITING = """
import os, sqlite3, sys

connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("PRAGMA cache_size=1")
connection.execute("BEGIN IMMEDIATE")
connection.execute("UPDATE api_keys SET name='half done'")
connection.execute("CREATE TABLE big AS SELECT randomblob(500000) AS b")
os._exit(0)
"""


@pytest.fixture
def data(tmp_path):
    """A data folder with a key, files of two owners and a second database."""
    folder = tmp_path / "data"
    database = Database.open(folder)
    KeyStore(database).make("phone", "farm", ["jobs"])
    database.close()
    for owner in ("farm", "other"):
        results = folder / "owners" / owner / "jobs" / "j-1_x" / "results"
        results.mkdir(parents=True)
        (results / "1.png").write_bytes(random.Random(owner).randbytes(3000))
        (results / "empty.csv").touch()
    (folder / "models.json").write_text("{}")
    return folder


@pytest.fixture
def archive(data, tmp_path):
    back_up(data, tmp_path / "backup.zip")
    return tmp_path / "backup.zip"


def _tree(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != SQLITE_FILE
    }


def _rows(folder):
    with closing(sqlite3.connect(folder / SQLITE_FILE)) as connection:
        return [*connection.iterdump()]


def test_what_comes_back_is_what_was_there(data, archive, tmp_path):
    listing = restore(archive, tmp_path / "back")
    assert _tree(tmp_path / "back") == _tree(data)
    assert _rows(tmp_path / "back") == _rows(data)
    assert len(listing.files) == 6
    assert listing.num_bytes == sum(
        path.stat().st_size for path in (tmp_path / "back").rglob("*") if path.is_file()
    )
    assert sorted(os.listdir(tmp_path)) == ["back", "backup.zip", "data"]  # no temporary file


def test_only_its_owner_may_read_archive_and_folder(archive, tmp_path):
    restore(archive, tmp_path / "back")
    assert archive.stat().st_mode & 0o077 == 0
    assert (tmp_path / "back").stat().st_mode & 0o077 == 0


def test_a_restored_key_opens_the_restored_service(tmp_path):
    database = Database.open(tmp_path / "data")
    key = KeyStore(database).make("phone", "farm", ["jobs"])
    database.close()
    back_up(tmp_path / "data", tmp_path / "b.zip")
    restore(tmp_path / "b.zip", tmp_path / "back")
    again = Database.open(tmp_path / "back")
    assert KeyStore(again).verify(key).owner == "farm"
    again.close()


def test_the_service_may_write_meanwhile(data, tmp_path):
    """Every archive taken under a busy writer holds a sound database at one moment."""
    database, stop, failed = Database.open(data), threading.Event(), []

    def write():
        keys = KeyStore(database)
        while not stop.wait(0.01):
            try:
                keys.make("k", "farm", ["jobs"])
            except Exception as error:  # noqa: BLE001 - whatever a thread raises is the finding
                failed.append(error)

    writer = threading.Thread(target=write)
    writer.start()
    counts = []
    for number in range(3):
        back_up(data, tmp_path / f"{number}.zip")
        restore(tmp_path / f"{number}.zip", tmp_path / f"back{number}")
        with closing(sqlite3.connect(tmp_path / f"back{number}" / SQLITE_FILE)) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
            counts.append(connection.execute("SELECT count(*) FROM api_keys").fetchone()[0])
    stop.set()
    writer.join()
    database.close()
    assert failed == []
    assert counts == sorted(counts)
    assert counts[-1] > counts[0]


def test_what_a_crash_left_half_done_is_not_in_the_archive(data, tmp_path):
    """A hot rollback journal is played back, and not copied beside the database."""
    before = _rows(data)
    subprocess.run([sys.executable, "-c", DIES_WRITING, data / SQLITE_FILE], check=True)
    journal = f"{SQLITE_FILE}-journal"
    assert (data / journal).stat().st_size > 0
    listing = back_up(data, tmp_path / "b.zip")
    restore(tmp_path / "b.zip", tmp_path / "back")
    assert _rows(tmp_path / "back") == before
    assert journal not in listing.files


def test_a_full_folder_is_left_alone(archive, tmp_path):
    full = tmp_path / "full"
    full.mkdir()
    (full / "mine").write_text("x")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for target in (full, full / "mine", tmp_path / "link"):
        with pytest.raises(OutputError, match="not empty"):
            restore(archive, target)
    assert _tree(full) == {"mine": b"x"}


def test_an_empty_folder_is_welcome(data, archive, tmp_path):
    (tmp_path / "empty").mkdir()
    restore(archive, tmp_path / "empty")
    assert _tree(tmp_path / "empty") == _tree(data)


def _refused(archive, tmp_path):
    target = tmp_path / "refused"
    with pytest.raises(ConfigError, match="damaged or foreign"):
        restore(archive, target)
    assert not target.exists()
    assert [name for name in os.listdir(tmp_path) if "restoring" in name] == []


def test_every_cut_is_noticed(archive, tmp_path):
    whole = archive.read_bytes()
    damaged = tmp_path / "damaged.zip"
    for length in [0, 1, 100, *range(1000, len(whole), len(whole) // 12), len(whole) - 1]:
        damaged.write_bytes(whole[:length])
        _refused(damaged, tmp_path)


def test_every_flipped_bit_is_noticed_or_changes_nothing(data, archive, tmp_path):
    """Bits in unused fields, such as times, may flip; no content ever differs."""
    whole, rng, noticed = archive.read_bytes(), random.Random(4), 0
    damaged = tmp_path / "damaged.zip"
    for number in range(60):
        changed = bytearray(whole)
        changed[rng.randrange(len(whole))] ^= 1 << rng.randrange(8)
        damaged.write_bytes(changed)
        try:
            restore(damaged, tmp_path / f"r{number}")
        except ConfigError:
            noticed += 1
            assert not (tmp_path / f"r{number}").exists()
        else:
            assert _tree(tmp_path / f"r{number}") == _tree(data)
            assert _rows(tmp_path / f"r{number}") == _rows(data)
    assert noticed > 50


def _rewrite(archive, target, change):
    """Copy an archive with its listing and entries changed, as a forger would."""
    with zipfile.ZipFile(archive) as old:
        entries = {name: old.read(name) for name in old.namelist()}
    listing = json.loads(entries.pop(LISTING))
    change(listing, entries)
    with zipfile.ZipFile(target, "w") as new:
        for name, content in entries.items():
            new.writestr(name, content)
        if listing is not None:
            new.writestr(LISTING, json.dumps(listing))


MODELS = "models.json"


def _unlisted(listing, entries):
    entries["more"] = b"x"


def _missing(listing, entries):
    del entries[MODELS]


def _longer(listing, entries):
    entries[MODELS] += bytes(10_000_000)


def _another_size(listing, entries):
    listing["files"][MODELS][0] += 1


def _another_sum(listing, entries):
    listing["files"][MODELS][1] = "0" * 64


def _foreign(listing, entries):
    listing["format"] = "other-backup"


def _incomplete(listing, entries):
    del listing["files"]


def _odd_values(listing, entries):
    listing["files"] = {MODELS: "x"}


def _more_values(listing, entries):
    listing["run"] = "rm"


FORGERIES = [_unlisted, _missing, _longer, _another_size, _another_sum, _foreign]
FORGERIES += [_incomplete, _odd_values, _more_values]


@pytest.mark.parametrize("change", FORGERIES, ids=lambda change: change.__name__[1:])
def test_forgeries_are_refused(archive, tmp_path, change):
    _rewrite(archive, tmp_path / "forged.zip", change)
    _refused(tmp_path / "forged.zip", tmp_path)


UNSAFE = ["../out", "/tmp/out", "a/../../out", "a\\..\\out", "C:out", "a//b", "./a", "a\nb", "a/"]


@pytest.mark.parametrize("name", UNSAFE)
def test_names_that_leave_the_folder_are_refused(archive, tmp_path, name):
    def change(listing, entries):
        entries[name] = entries.pop(MODELS)
        listing["files"][name] = listing["files"].pop(MODELS)

    _rewrite(archive, tmp_path / "forged.zip", change)
    _refused(tmp_path / "forged.zip", tmp_path)
    assert not (tmp_path / "out").exists()


def test_an_archive_of_a_newer_weedseg_says_which(archive, tmp_path):
    def change(listing, entries):
        listing.update(version=2, weedseg_version="9.9.9", new="field")

    _rewrite(archive, tmp_path / "newer.zip", change)
    with pytest.raises(ConfigError, match=r"backup format 2.*weedseg 9\.9\.9"):
        restore(tmp_path / "newer.zip", tmp_path / "back")


def test_backup_refuses_what_it_should(data, archive, tmp_path):
    with pytest.raises(OutputError, match="there already"):
        back_up(data, archive)
    with pytest.raises(OutputError, match="in the data folder"):
        back_up(data, data / "b.zip")
    with pytest.raises(OutputError, match="cannot be written"):
        back_up(data, tmp_path / "none" / "b.zip")
    with pytest.raises(ConfigError, match="not there"):
        back_up(tmp_path / "none", tmp_path / "b.zip")
    with pytest.raises(ConfigError, match="is not in"):
        back_up(data, tmp_path / "b.zip", f"sqlite:///{tmp_path}/other.sqlite")
    assert not (tmp_path / "b.zip").exists()


def test_a_damaged_database_is_told_when_it_is_backed_up(data, tmp_path):
    content = (data / SQLITE_FILE).read_bytes()
    (data / SQLITE_FILE).write_bytes(content[:100] + b"\xff" * (len(content) - 100))
    with pytest.raises(ConfigError, match=SQLITE_FILE):
        back_up(data, tmp_path / "b.zip")
    assert sorted(os.listdir(tmp_path)) == ["data"]


def test_the_commands_say_what_they_did(data, tmp_path, capsys):
    archive, back = tmp_path / "b.zip", tmp_path / "back"
    assert main(["backup", "--data", str(data), "--out", str(archive)]) == 0
    assert main(["restore", str(archive), "--data", str(back)]) == 0
    assert main(["restore", str(archive), "--data", str(back)]) == 6
    out, err = capsys.readouterr()
    assert out.count("6 files") == 2
    assert "not empty" in err
    assert _tree(back) == _tree(data)


def test_with_postgresql_the_commands_speak_of_pg_dump(data, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("WEEDSEG_DATABASE_URL", "postgresql://farm@db.example/weedseg")
    assert main(["backup", "--data", str(data), "--out", str(tmp_path / "b.zip")]) == 0
    assert main(["restore", str(tmp_path / "b.zip"), "--data", str(tmp_path / "back")]) == 0
    assert capsys.readouterr().out.count("pg_dump") == 2
