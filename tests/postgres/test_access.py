"""Logging in, refusing what cannot be trusted, and the schema both ways, on a real PostgreSQL."""

import threading
from pathlib import Path

import pytest
from sqlalchemy.engine import make_url

from rebalancerd.ports import LedgerUnavailableError
from rebalancerd.record import evolve
from rebalancerd.record.postgres import Access, make_engine
from rebalancerd.record.reader import LedgerReader
from rebalancerd.record.schema import metadata
from rebalancerd.record.sql_ledger import SqlLedger
from tests.postgres_server import Postgres
from tests.unit.record.record_values import FixedClock, make_cycle, make_migration, make_plan

PASSWORD = "s3cret-of-the-ledger"


@pytest.fixture
def login(server: Postgres, url: str, tmp_path: Path) -> tuple[str, Path]:
    """URL over TCP that needs a password, and the file that holds it."""
    name = make_url(url).database
    user = f"user_{name}"
    server.sql(f"CREATE ROLE {user} LOGIN PASSWORD '{PASSWORD}'")
    server.sql(f'ALTER DATABASE "{name}" OWNER TO {user}')
    file = tmp_path / "password"
    file.write_text(PASSWORD + "\n")
    file.chmod(0o600)
    return server.tcp_url(user, name), file


def test_the_password_comes_from_a_file(login: tuple[str, Path], clock: FixedClock) -> None:
    url, file = login

    ledger = SqlLedger(url, clock, access=Access(password_file=str(file)))

    assert ledger.record_cycle(make_cycle()) == 1
    with LedgerReader(url, Access(password_file=str(file))) as reader, reader.reading() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM cycles").scalar() == 1
    ledger.close()


def test_the_password_comes_from_a_systemd_credential(login, clock: FixedClock, monkeypatch) -> None:
    url, file = login
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(file.parent))

    SqlLedger(url, clock, access=Access(password_file=file.name)).close()


@pytest.mark.parametrize(
    ("content", "mode", "told"),
    [
        ("wrong-" + PASSWORD, 0o600, "password authentication failed"),
        ("", 0o600, "empty first line"),
        (PASSWORD, 0o604, "is open to every user"),
        (None, 0, "cannot be read: No such file"),
    ],
)
def test_what_is_wrong_with_it_is_told_and_the_password_never(login, clock: FixedClock, content, mode, told) -> None:
    url, file = login
    if content is None:
        file.unlink()
    else:
        file.write_text(content)
        file.chmod(mode)

    with pytest.raises(LedgerUnavailableError, match=told) as caught:
        SqlLedger(url, clock, access=Access(password_file=str(file)))

    assert PASSWORD not in str(caught.value) + repr(caught.value.__cause__)


def test_a_credential_outside_a_service_is_told(login, clock: FixedClock, monkeypatch) -> None:
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)

    with pytest.raises(LedgerUnavailableError, match="LoadCredential="):
        SqlLedger(login[0], clock, access=Access(password_file="ledger"))


def test_a_password_in_the_url_is_refused_unseen(clock: FixedClock) -> None:
    with pytest.raises(LedgerUnavailableError, match="holds no password") as caught:
        SqlLedger(f"postgresql://u:{PASSWORD}@localhost/x", clock)

    assert PASSWORD not in str(caught.value)


def test_a_server_that_may_lose_what_it_said_is_refused(server: Postgres, url: str, clock: FixedClock) -> None:
    server.sql("ALTER SYSTEM SET fsync = off")
    server.sql("SELECT pg_reload_conf()")
    try:
        with pytest.raises(LedgerUnavailableError, match="fsync = off"):
            SqlLedger(url, clock)
    finally:
        server.sql("ALTER SYSTEM RESET fsync")
        server.sql("SELECT pg_reload_conf()")


def test_commits_are_durable_whatever_the_server_prefers(server: Postgres, url: str, ledger: SqlLedger) -> None:
    server.sql(f'ALTER DATABASE "{make_url(url).database}" SET synchronous_commit = off')
    ledger._engine.dispose()

    with ledger.reading() as connection:
        assert connection.exec_driver_sql("SHOW synchronous_commit").scalar() == "on"


def test_reads_are_one_picture(reopen) -> None:
    """What is committed while a reader looks is not half in what it sees."""
    ledger, other = reopen(), reopen()
    with ledger.reading() as connection:
        before = connection.exec_driver_sql("SELECT count(*) FROM cycles").scalar()
        other.record_cycle(make_cycle())
        assert connection.exec_driver_sql("SELECT count(*) FROM cycles").scalar() == before


def test_versions_build_the_declared_tables(url: str, ledger: SqlLedger) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    with ledger._engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []
        assert context.get_current_revision() == evolve.HEAD


def test_the_schema_goes_both_ways_with_what_is_in_it(url: str, ledger: SqlLedger, clock: FixedClock) -> None:
    cycle = ledger.record_cycle(make_cycle())
    ledger.record_plan(make_plan())
    ledger.open_intent(make_migration())
    engine = make_engine(make_url(url), Access())

    evolve.migrate(engine, "0001")
    with engine.connect() as connection:
        assert evolve.revision_of(connection) == "0001"
        assert not connection.dialect.has_table(connection, "lease")
    with pytest.raises(LedgerUnavailableError, match="older than"):
        LedgerReader(url)
    again = SqlLedger(url, clock)  # brings it up to date

    assert [c.id for c in again.cycles()] == [cycle]
    assert again.open_migrations() == (make_migration(),)
    assert again.integrity_check() == ()
    evolve.migrate(engine, "base")
    with engine.connect() as connection:
        assert not connection.dialect.has_table(connection, "migrations")
    engine.dispose()
    again.close()


def test_a_newer_schema_is_refused_and_left_alone(url: str, ledger: SqlLedger, clock: FixedClock) -> None:
    with ledger._writing() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")

    with pytest.raises(LedgerUnavailableError, match="a newer version wrote it"):
        SqlLedger(url, clock)


def test_controllers_that_start_at_once_make_one_schema(url: str, clock: FixedClock) -> None:
    made: list[object] = []

    def start() -> None:
        try:
            made.append(SqlLedger(url, clock))
        except LedgerUnavailableError as error:
            made.append(error)

    threads = [threading.Thread(target=start) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert [type(m) for m in made] == [SqlLedger] * 4
    for ledger in made:
        ledger.close()


def test_rows_that_refer_to_nothing_or_were_changed_are_found(url: str, ledger: SqlLedger) -> None:
    ledger.record_plan(make_plan())
    with ledger._writing() as connection:
        connection.exec_driver_sql("ALTER TABLE steps DROP CONSTRAINT fk_steps_plan_id")
        connection.exec_driver_sql("UPDATE steps SET plan_id = 'p-9'")
        connection.exec_driver_sql("UPDATE plans SET digest = 'x'")

    found = ledger.integrity_check()

    assert "rows of steps refer to plans that are not there" in found[0]
    assert "plan p-1 was changed" in found[1]


def test_a_restarted_database_comes_back_by_itself(server: Postgres, ledger: SqlLedger) -> None:
    ledger.record_cycle(make_cycle())
    server.stop()
    with pytest.raises(LedgerUnavailableError):
        ledger.record_cycle(make_cycle())
    with pytest.raises(LedgerUnavailableError):
        ledger.cycles()
    server.start()

    ledger.record_cycle(make_cycle())

    assert len(ledger.cycles()) == 2
