"""The database on SQLite and on PostgreSQL: the same behaviour, the same refusals."""

import threading

import pytest
from sqlalchemy import text, update
from sqlalchemy.exc import IntegrityError

from weedseg.errors import ConfigError, RuntimeUnavailableError
from weedseg.serve.database import SCHEMA_VERSION, Database, SchemaVersion, network_filesystem


@pytest.fixture
def database(database_url):
    opened = Database(database_url)
    yield opened
    opened.close()


def _version(database):
    with database.read() as session:
        return session.get_one(SchemaVersion, 1).version


def test_a_commit_outlives_the_process_that_made_it(database, database_url):
    with database.begin() as session:
        session.add(SchemaVersion(row=7, version=3))
    again = Database(database_url)
    with again.read() as session:
        assert session.get_one(SchemaVersion, 7).version == 3
    again.close()


def test_an_exception_takes_everything_back(database):
    with pytest.raises(ZeroDivisionError), database.begin() as session:
        session.add(SchemaVersion(row=7, version=1 // 0))
    with pytest.raises(IntegrityError), database.begin() as session:
        session.add_all([SchemaVersion(row=8, version=1), SchemaVersion(row=1, version=1)])
    with database.read() as session:
        assert session.get(SchemaVersion, 8) is None


def test_writers_wait_for_each_other(database):
    """Counting by read and write from many threads loses no step."""

    def count():
        for _ in range(10):
            with database.begin() as session:
                row = session.get_one(SchemaVersion, 7, with_for_update=True)
                row.version += 1

    with database.begin() as session:
        session.add(SchemaVersion(row=7, version=0))
    threads = [threading.Thread(target=count) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with database.read() as session:
        assert session.get_one(SchemaVersion, 7).version == 60


def test_several_processes_may_open_a_new_database_at_once(database_url):
    failures, opened = [], []

    def open_it():
        try:
            opened.append(Database(database_url))
        except Exception as error:  # noqa: BLE001 - whatever a thread raises is the finding
            failures.append(error)

    threads = [threading.Thread(target=open_it) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert _version(opened[0]) == SCHEMA_VERSION
    for each in opened:
        each.close()


def test_tables_of_a_newer_weedseg_are_refused(database, database_url):
    with database.begin() as session:
        session.execute(update(SchemaVersion).values(version=SCHEMA_VERSION + 1))
    with pytest.raises(ConfigError, match=f"schema version {SCHEMA_VERSION + 1}") as caught:
        Database(database_url)
    assert "install the weedseg that wrote it" in caught.value.remedy


def test_sqlite_is_set_up_to_survive_a_power_cut(tmp_path):
    database = Database.open(tmp_path / "data")
    wanted = {"journal_mode": "delete", "synchronous": 2, "foreign_keys": 1, "busy_timeout": 30000}
    with database.read() as session:
        found = {name: session.scalar(text(f"PRAGMA {name}")) for name in wanted}
    database.close()
    assert found == wanted
    assert (tmp_path / "data").stat().st_mode & 0o077 == 0


def test_readers_do_not_hold_a_writer_up(tmp_path):
    database = Database.open(tmp_path)
    with database.read() as first, database.read() as second:
        assert first.get(SchemaVersion, 1) is not None
        assert second.get(SchemaVersion, 1) is not None
    with database.begin() as session:
        session.add(SchemaVersion(row=9, version=1))
    database.close()


def test_a_lock_that_is_never_given_back_ends_in_an_answer(tmp_path, monkeypatch):
    monkeypatch.setattr("weedseg.serve.database.BUSY_TIMEOUT_S", 0.1)
    database = Database.open(tmp_path)
    with database.begin(), pytest.raises(RuntimeUnavailableError, match="locked"), database.begin():
        pass
    database.close()


@pytest.mark.parametrize(
    ("url", "found"),
    [
        ("mysql://root:secret@host/db", "begins with 'mysql'"),
        ("no address", "begins with 'unknown'"),
        ("sqlite://", "in memory"),
        ("sqlite:///:memory:", "in memory"),
    ],
)
def test_other_databases_are_refused_without_repeating_a_password(url, found):
    with pytest.raises(ConfigError, match=found) as caught:
        Database(url)
    assert "secret" not in str(caught.value)


def test_a_postgresql_that_is_not_there_is_named_as_such():
    with pytest.raises(RuntimeUnavailableError, match="does not answer") as caught:
        Database("postgresql://nobody:secret@127.0.0.1:1/none")
    assert "secret" not in str(caught.value)


def test_a_restart_of_postgresql_is_survived(postgres_server, postgres_url):
    database = Database(postgres_url.replace("+psycopg", ""))
    assert _version(database) == SCHEMA_VERSION
    name = postgres_url.rpartition("/")[2]
    postgres_server.run(
        f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"
    )
    assert _version(database) == SCHEMA_VERSION
    database.close()


def test_network_file_systems_are_known(tmp_path):
    mounts = tmp_path / "mounts"
    mounts.write_text(
        "/dev/sda1 / ext4 rw 0 0\nserver:/farm /srv nfs4 rw 0 0\n"
        "/dev/sdb1 /srv/local ext4 rw 0 0\n//nas/a /mnt/my\\040farm cifs rw 0 0\nbroken\n"
    )

    def kind(folder):
        from pathlib import Path

        return network_filesystem(Path(folder), mounts)

    assert kind("/home/farm") is None
    assert kind("/srv/data/new") == "nfs4"
    assert kind("/srv/local/data") is None
    assert kind("/mnt/my farm") == "cifs"
    assert network_filesystem(tmp_path, tmp_path / "none") is None


def test_sqlite_on_a_network_file_system_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("weedseg.serve.database.network_filesystem", lambda folder: "nfs4")
    with pytest.raises(ConfigError, match="network file system"):
        Database.open(tmp_path)
