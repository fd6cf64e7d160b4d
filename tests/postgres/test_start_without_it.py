"""A daemon that is started while its database is away: it observes, says so, and works as soon as the database answers."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from rebalancerd.cli.client import Client
from rebalancerd.cli.exits import CliError
from tests.e2e.test_cli_process import config
from tests.postgres_server import Postgres, why_not


def wait(reached: Callable[[], bool], process: subprocess.Popen[bytes], log: Path, what: str) -> None:
    deadline = time.monotonic() + 180
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text()[-4000:]
        try:
            if reached():
                return
        except CliError:
            pass  # not there yet, or between the two
        time.sleep(0.3)
    raise AssertionError(f"{what}: {log.read_text()[-4000:]}")


@pytest.mark.skipif(why_not() is not None, reason=str(why_not()))
def test_it_waits_for_the_database_and_then_leads(tmp_path: Path) -> None:
    """Nothing can be commanded until then; afterwards it is one daemon like any other, and ends like one."""
    server = Postgres()
    url = server.create("late")
    server.stop()
    file = config(tmp_path, mode="auto")
    file.write_text(file.read_text() + f'[ledger]\nurl = "{url}"\n')
    client, log = Client(tmp_path / "s"), tmp_path / "log"

    def checks() -> set[str]:
        return {c["code"] for c in client.get("status")["checks"]}

    with log.open("wb") as out:
        command = [sys.executable, "-m", "rebalancerd", "run", "--config", str(file)]
        process = subprocess.Popen(command, stdout=out, stderr=out, cwd=tmp_path)
    try:
        wait(lambda: "LEDGER_UNAVAILABLE" in checks(), process, log, "it says that the ledger is away")
        assert client.get("status")["mode"] == "observe"
        with pytest.raises(CliError, match=r"observe|ledger|connect"):
            client.post("pause")
        server.start()
        wait(lambda: client.get("status")["mode"] == "auto", process, log, "it acts")
        wait(lambda: not {"LEDGER_UNAVAILABLE", "LEASE_LOST"} & checks(), process, log, "it leads")
        client.post("pause")
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
        assert server.sql("SELECT count(*) FROM commands", "late") == "1"
    finally:
        process.kill()
        process.wait()
        server.close()
