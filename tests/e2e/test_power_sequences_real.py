"""The whole sequence over real protocols: asleep and back against an honest controller, and never trusted with a liar."""

import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from rebalancerd.act.power.adapters import ConfiguredPower
from rebalancerd.act.power.keeper import PowerKeeper
from rebalancerd.act.power.settings import HostPower, PowerSettings
from rebalancerd.clock import SystemClock
from rebalancerd.cluster.host import HostFacts
from rebalancerd.cluster.power import PowerPhase, PowerState
from rebalancerd.cluster.sample import HostInventory, HostSample
from rebalancerd.ports import HostUnreachableError
from rebalancerd.record.sql_ledger import SqlLedger
from tests.e2e.power_world import SYSTEM, controlled, ipmi_simulator, liar, redfish_emulator

QUICK = PowerSettings(
    empty_settle_seconds=1.0,
    asleep_poll_seconds=1.0,
    shutdown_deadline_seconds=20.0,
    wake_deadline_seconds=60.0,
    reorder_seconds=15.0,
)


class Libvirt:
    """An empty host whose libvirt answers exactly while the machine is truly on."""

    def __init__(self, is_on: Callable[[], bool]) -> None:
        self._is_on = is_on

    def hosts(self) -> tuple[str, ...]:
        return ("h",)

    def inventory(self, host: str) -> HostInventory:
        self._enter(host)
        nothing = dict.fromkeys(("networks", "bridges", "pools", "secrets", "nwfilters"), frozenset())
        return HostInventory(host=host, host_uuid="u", domains=(), **nothing)  # type: ignore[arg-type]

    def sample(self, host: str) -> HostSample:
        self._enter(host)
        return HostSample(
            host=host,
            taken_at=0.0,
            facts=HostFacts(uuid="u", cpus=8, memory_bytes=1 << 34),
            cpu_busy_ns=0,
            memory_total_bytes=1 << 34,
            memory_available_bytes=1 << 33,
            domains=(),
        )

    def _enter(self, host: str) -> None:
        if not self._is_on():
            raise HostUnreachableError(host, "connection refused")


def keeper_of(power: HostPower, is_on: Callable[[], bool]) -> PowerKeeper:
    clock = SystemClock()
    return PowerKeeper(
        power=ConfiguredPower({"h": power}, call_deadline_seconds=10),
        read=Libvirt(is_on),  # type: ignore[arg-type]
        ledger=SqlLedger("sqlite://", clock),
        clock=clock,
        settings=QUICK,
        migrations=tuple,
    )


def phases_until(keeper: PowerKeeper, *last: PowerPhase, seconds: float) -> list[PowerPhase]:
    """Tick as the daemon does; the phases that were seen."""
    seen: list[PowerPhase] = []
    until = time.monotonic() + seconds
    while not seen or seen[-1] not in last:
        assert time.monotonic() < until, (seen, keeper.records())
        keeper.tick()
        (record,) = keeper.records()
        if not seen or seen[-1] is not record.phase:
            seen.append(record.phase)
        time.sleep(0.2)
    return seen


def slept_and_came_back(keeper: PowerKeeper) -> None:
    assert keeper.sleep("h", "wake test", by="test", test=True) is None
    seen = phases_until(keeper, PowerPhase.AWAKE, seconds=90)
    assert PowerPhase.SHUTTING_DOWN in seen and PowerPhase.ASLEEP in seen and PowerPhase.WAKING in seen
    (record,) = keeper.records()
    assert record.tested_at is not None and len(record.boots) == 1 and record.disabled is None


def never_believed(keeper: PowerKeeper) -> None:
    assert keeper.sleep("h", "wake test", by="test", test=True) is None
    seen = phases_until(keeper, PowerPhase.STUCK, PowerPhase.AWAKE, seconds=90)
    assert seen[-1] is PowerPhase.STUCK and PowerPhase.ASLEEP not in seen
    (record,) = keeper.records()
    assert record.disabled is not None and "libvirt is silent" in record.disabled
    assert "h" in keeper.blocked()


def test_redfish_asleep_and_back(tmp_path: Path) -> None:
    with redfish_emulator(tmp_path) as url:
        power = controlled(tmp_path, "redfish", url, system=SYSTEM)
        truth = ConfiguredPower({"h": power}, call_deadline_seconds=10)
        slept_and_came_back(keeper_of(power, lambda: truth.state("h").state is PowerState.ON))


def test_a_redfish_controller_that_always_says_on_is_never_believed(tmp_path: Path) -> None:
    with redfish_emulator(tmp_path) as url, liar(url, state="On") as front:
        truth = ConfiguredPower({"h": controlled(tmp_path, "redfish", url)}, call_deadline_seconds=10)
        lying = controlled(tmp_path, "redfish", front, system=SYSTEM)
        never_believed(keeper_of(lying, lambda: truth.state("h").state is PowerState.ON))


needs_ipmi_sim = pytest.mark.skipif(shutil.which("ipmi_sim") is None, reason="needs the package openipmi")


@needs_ipmi_sim
def test_ipmi_asleep_and_back(tmp_path: Path) -> None:
    with ipmi_simulator(tmp_path) as (address, chassis):
        power = controlled(tmp_path, "ipmi", address)
        slept_and_came_back(keeper_of(power, lambda: chassis.read_text().strip() == "1"))


@needs_ipmi_sim
def test_an_ipmi_controller_that_always_says_on_is_never_believed(tmp_path: Path) -> None:
    with ipmi_simulator(tmp_path, lies=True) as (address, chassis):
        never_believed(keeper_of(controlled(tmp_path, "ipmi", address), lambda: chassis.read_text().strip() == "1"))
        assert chassis.read_text().strip() == "0", "shut down in good order once, and never by force"
