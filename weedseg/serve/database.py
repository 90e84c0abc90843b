"""The service's database: SQLite in the data folder, or PostgreSQL by URL.

Tables are declared on `Base` by the module that owns them (`weedseg.serve.keys` and others).
The schema has one version; a database written by a newer weedseg is refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Engine, create_engine, event, make_url, text
from sqlalchemy.engine import Connection
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, sessionmaker

from weedseg.errors import ConfigError, OutputError, RuntimeUnavailableError, WeedsegError

SCHEMA_VERSION = 1
"""Version of all tables together; raise it with every change that `create_all` cannot make."""

SQLITE_FILE = "weedseg.sqlite"
BUSY_TIMEOUT_S = 30.0
"""How long a connection waits for another process to finish writing."""

_LOCK = 0x77656564
"""Advisory lock of PostgreSQL under which tables are made ("weed")."""

_READ = "weedseg_read"
_NETWORK_FILESYSTEMS = frozenset(
    {"afs", "beegfs", "ceph", "cifs", "fuse.ceph", "fuse.glusterfs", "fuse.s3fs", "fuse.sshfs"}
    | {"glusterfs", "gpfs", "lustre", "ncpfs", "nfs", "nfs4", "smb2", "smb3", "smbfs"}
)


class Base(DeclarativeBase):
    """What every table of the service derives from."""


class SchemaVersion(Base):
    """The one row that says which tables these are."""

    __tablename__ = "weedseg_schema"

    row: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    version: Mapped[int]


class Database:
    """Connections to one database and transactions on them; safe to share between threads.

    Attributes:
        url: The address, with a driver; its text hides the password.
        engine: SQLAlchemy's engine, for libraries that want one.
    """

    def __init__(self, url: str) -> None:
        """Open the database and make the tables that are missing.

        Args:
            url: ``sqlite:////absolute/file`` or ``postgresql://user:password@host/name``.

        Raises:
            ConfigError: The address is none of the two, the file lies on a network file system,
                or the tables were made by a newer weedseg.
            RuntimeUnavailableError: The database does not answer.
        """
        self.url = read_address(url)
        self.engine = _sqlite(self.url) if self.is_sqlite else _postgresql(self.url)
        reader = self.engine.execution_options(**{_READ: True})
        self._writing = sessionmaker(self.engine, expire_on_commit=False)
        self._reading = sessionmaker(reader, expire_on_commit=False)
        try:
            self.create_tables()
        except WeedsegError:
            self.close()
            raise

    @classmethod
    def open(cls, data: Path, url: str = "") -> Database:
        """Open the database of a data folder.

        Args:
            data: The data folder; made if it is missing, readable by its owner only.
            url: Address of a PostgreSQL database; empty for the SQLite file in the folder.

        Raises:
            ConfigError: As for the constructor.
            RuntimeUnavailableError: The database does not answer.
            OutputError: The folder cannot be made.
        """
        try:
            data.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(
                f"{data} cannot be made: {error.strerror}", "a folder", "choose another --data"
            ) from error
        return cls(url or sqlite_url(data))

    @property
    def is_sqlite(self) -> bool:
        """Whether this is a SQLite file."""
        return self.url.get_backend_name() == "sqlite"

    @contextmanager
    def begin(self) -> Iterator[Session]:
        """Run one writing transaction: committed at the end, rolled back by any exception.

        On SQLite it holds the only write lock from its first moment, so keep it short.

        Raises:
            RuntimeUnavailableError: The database does not answer or is locked for too long.
        """
        with _answering(), self._writing.begin() as session:
            session.connection()  # take the lock now, not at the first statement
            yield session

    @contextmanager
    def read(self) -> Iterator[Session]:
        """Run one reading transaction; it holds no other reader up.

        Raises:
            RuntimeUnavailableError: The database does not answer.
        """
        with _answering(), self._reading.begin() as session:
            yield session

    def create_tables(self) -> None:
        """Make the tables of all modules imported so far; those that are there stay as they are.

        Several processes may do so at once.

        Raises:
            ConfigError: The tables were made by a newer weedseg.
            RuntimeUnavailableError: The database does not answer.
        """
        with _answering(), self.engine.begin() as connection:
            if not self.is_sqlite:
                connection.execute(text(f"SELECT pg_advisory_xact_lock({_LOCK})"))
            SchemaVersion.metadata.create_all(connection, tables=[SchemaVersion.__table__])  # type: ignore[list-item]
            self._check_version(connection)
            Base.metadata.create_all(connection)

    def _check_version(self, connection: Connection) -> None:
        """Write the version into a new database; compare it with that of an old one.

        Raises:
            ConfigError: The tables were made by a newer weedseg.
        """
        with Session(connection) as session:
            found = session.get(SchemaVersion, 1)
            if found is None:
                session.add(SchemaVersion(row=1, version=SCHEMA_VERSION))
                session.commit()
            elif found.version > SCHEMA_VERSION:
                raise ConfigError(
                    f"the database has schema version {found.version}",
                    f"{SCHEMA_VERSION}, the newest that this weedseg knows",
                    "install the weedseg that wrote it, or restore an older backup",
                )

    def close(self) -> None:
        """Close all connections that are not in use."""
        self.engine.dispose()


def sqlite_url(data: Path) -> str:
    """Return the address of the SQLite file of a data folder."""
    return URL.create("sqlite", database=str((data / SQLITE_FILE).absolute())).render_as_string()


def read_address(url: str) -> URL:
    """Read the address of a database and choose its driver.

    Args:
        url: ``sqlite:///file`` or ``postgresql://user:password@host/name``.

    Raises:
        ConfigError: It is neither SQLite nor PostgreSQL.
    """
    try:
        address = make_url(url)
    except ArgumentError:
        address = URL.create("unknown")
    drivers = {"sqlite": "sqlite+pysqlite", "postgresql": "postgresql+psycopg"}
    name = {"postgres": "postgresql"}.get(address.drivername, address.drivername)
    driver = drivers.get(name, name)
    if driver not in drivers.values():
        raise ConfigError(  # the address may hold a password, so it is not repeated
            f"a database address that begins with '{address.drivername}'",
            "postgresql://user:password@host/name or sqlite:////absolute/file",
            "correct --database-url or WEEDSEG_DATABASE_URL",
        )
    return address.set(drivername=driver)


def _sqlite(url: URL) -> Engine:
    """Open a SQLite file: rollback journal, every commit on the disk before it counts.

    WAL is left out on purpose: SQLite before 3.51.3 can corrupt a database in that mode.

    Raises:
        ConfigError: The file lies on a network file system or is kept in memory.
    """
    if not url.database or url.database == ":memory:":
        raise ConfigError("a database in memory", "a file, to survive a restart", "name a file")
    kind = network_filesystem(Path(url.database).parent)
    if kind:
        raise ConfigError(
            f"{url.database} is on a network file system ({kind})",
            "a local disk, since file locks over a network can corrupt SQLite",
            "choose another --data or give a PostgreSQL --database-url",
        )
    engine = create_engine(url, connect_args={"timeout": BUSY_TIMEOUT_S})

    @event.listens_for(engine, "connect")
    def _set_up(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # BEGIN is said below, not guessed by the driver
        for setting in ("journal_mode=DELETE", "synchronous=FULL", "foreign_keys=ON"):
            connection.execute(f"PRAGMA {setting}")

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        reading = connection.get_execution_options().get(_READ, False)
        connection.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")

    return engine


def _postgresql(url: URL) -> Engine:
    """Connect to PostgreSQL; connections that died are found before they are used."""
    return create_engine(
        url, pool_pre_ping=True, pool_size=10, connect_args={"connect_timeout": 10}
    )


@contextmanager
def _answering() -> Iterator[None]:
    """Turn a silent or locked database into an error with a remedy.

    Raises:
        RuntimeUnavailableError: The database does not answer.
    """
    try:
        yield
    except IntegrityError:
        raise
    except DBAPIError as error:
        if not (error.connection_invalidated or type(error).__name__ == "OperationalError"):
            raise
        reason = str(error.orig).strip().splitlines() or ["no reason given"]
        raise RuntimeUnavailableError(
            f"the database does not answer ({reason[0]})",
            "a database that answers",
            "check that it runs, its address and the room on its disk, then try again",
        ) from error


def network_filesystem(folder: Path, mounts: Path = Path("/proc/self/mounts")) -> str | None:
    """Tell whether a folder lies on a file system of another machine.

    Args:
        folder: Any folder; it need not exist yet.
        mounts: The kernel's list of mounts.

    Returns:
        The kind, such as ``nfs4``; None for a local disk and where the system does not say.
    """
    try:
        lines = mounts.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return None
    real, best, kind = folder.resolve(), Path("/"), ""
    for line in lines:
        _, point, found, *_ = (*line.split(" "), "", "", "")
        place = Path(point.replace("\\040", " "))
        if real.is_relative_to(place) and len(place.parts) >= len(best.parts):
            best, kind = place, found
    return kind if kind in _NETWORK_FILESYSTEMS else None
