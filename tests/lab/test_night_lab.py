"""A night in minutes: three hosts fold to one, two are powered off by Redfish, and are back before the morning's load.

Everything is real: the daemon, the hosts' libvirtd, the guests and their migrations, the Redfish controller whose power
state stops and starts the hosts. Only the days are short: load is recorded and forecast in steps of 15 s instead of 5 min
and comes again every 40 minutes, and the past days are written to the history by the daemon's own store. On a machine that
is slow or busy all of it is stretched.
"""

import json
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any

import pytest

from rebalancerd.cluster.migration import MigrationState
from rebalancerd.lab import GuestSpec, Lab, LabSpec, Phase
from rebalancerd.lab.heartbeat import Heartbeat, parse_heartbeats
from rebalancerd.observe.history import HOST_CPU, HOST_MEMORY, VM_CPU, VM_MEMORY, History, tiers_of
from tests.lab.daemon_on_lab import DaemonOnLab
from tests.lab.redfish_lab import Switches, lab_behind_redfish

STEPS_AHEAD, STEPS_A_DAY = 4, 160
PAST_DAYS = 6
CALM_CORES, BUSY_CORES = 0.03, 0.25  # of the 0.6 that a host has: busy, one host each is what is within the headroom
BUSY = (Phase(seconds=3600, cpu_percent=22.0),)
GUESTS = {"web": "h1", "shop": "h2", "mail": "h3"}
SLEEPERS = ("h2", "h3")  # h1 draws least, so it is the one that stays on
QUIET_START_SECONDS = 20.0  # it takes less than that to the daemon's first cycle on a machine with little else to do
SLOWEST = 3

pytestmark = pytest.mark.lab_full


@pytest.fixture(scope="module")
def lab(make_spec: Callable[..., LabSpec], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """Three hosts of this test's own: they are switched off and on."""
    room = Lab(make_spec(hosts=3), tmp_path_factory.mktemp("night") / "state")
    try:
        room.up()
        yield room
    finally:
        room.down()


@pytest.fixture
def switches(lab: Lab, tmp_path: Path) -> Iterator[Switches]:
    (tmp_path / "bmc").mkdir()
    with lab_behind_redfish(lab, tmp_path / "bmc") as made:
        yield made
    for host in lab.hosts:
        lab.power_on(host.name)  # so that guests can be removed, wherever they are


@pytest.fixture
def daemon(lab: Lab, switches: Switches, tmp_path: Path) -> Iterator[DaemonOnLab]:
    made = DaemonOnLab(lab, tmp_path)
    try:
        yield made
    finally:
        made.close()


@dataclass(frozen=True)
class Night:
    """Epoch seconds: the window, and when the morning's load came on all past days. ``slow``: by what all is stretched."""

    begins: float
    ends: float
    morning: float
    slow: int

    @classmethod
    def soon(cls, slow: int) -> "Night":
        """It begins with a minute to come. Its last minute unfolds; the morning comes in the midst of that."""
        begins = (int(time.time() + 12 * slow) // 60 + 1) * 60.0
        ends = begins + 180.0 * slow
        step = 15.0 * slow
        return cls(begins, ends, (ends - 2 * step) // step * step, slow)

    @property
    def step(self) -> float:
        """Seconds of one step of the recorded load and of the forecast."""
        return 15.0 * self.slow


def configure(daemon: DaemonOnLab, switches: Switches, night: Night | None) -> None:
    """The same configuration with and without a night."""
    slow = night.slow if night is not None else 1
    step = 15 * slow
    extra = [
        f'[predict]\nhorizon = "{STEPS_AHEAD * step} s"\nstep = "{step} s"\nseason = "{STEPS_A_DAY * step} s"',
        '[power]\npoll = "1 s"\nasleep_poll = "5 s"\nempty_settle = "2 s"\nboot = "15 s"\nmin_up = "0 s"\nmin_down = "0 s"',
        f'unfold = "{15 * slow} s"\nmargin = "{10 * slow} s"',
        'hosts_on_min = 1\nspare_hosts = 0\nsleep_at_once = 2\nreorder = "30 s"\ncpu_headroom = 0.5',
        '[guard]\nhold_rounds = 1\ncooldown = "5 s"\nreverse_tabu = "0 s"',
    ]
    if night is not None:
        extra.append(
            f'[[guard.policy_windows]]\nname = "night"\nstart = "{cron(night.begins)}"\nend = "{cron(night.ends)}"\n'
            f'policy = "consolidate"\nunfold = "{60 * slow} s"'
        )
    watts = {"h1": 90, "h2": 120, "h3": 120}
    daemon.configure(
        extra="\n".join(extra),
        # of a night that is short, a sleep must be worth its moves as that of a long one is
        plan='power_cycle = "10 s"\nweight_cost = 0.05',
        host_extra={
            name: f"idle_watts = {idle}\nmax_watts = {idle + 60}\n{switches.config(name)}"
            for name, idle in watts.items()
        },
    )


def cron(instant: float) -> str:
    at = time.gmtime(instant)
    return f"{at.tm_min} {at.tm_hour} * * *"


def write_past_days(daemon: DaemonOnLab, lab: Lab, night: Night) -> None:
    """Days on which all guests became busy at the time of that morning, and calm after half a day."""
    directory = daemon.directory / "state" / "history"
    shutil.rmtree(directory, ignore_errors=True)  # the wake tests were no such day
    history, noise = History(directory, tiers=tiers_of(night.step)), Random(7)
    day = STEPS_A_DAY * night.step
    at = night.morning - PAST_DAYS * day + night.step / 2
    while at < time.time():
        busy = (at - night.morning) % day < day / 2
        cores = {name: (BUSY_CORES if busy else CALM_CORES) * noise.uniform(0.97, 1.03) for name in GUESTS}
        values = {
            VM_CPU: {lab.spec.guest_uuid(name): value for name, value in cores.items()},
            VM_MEMORY: {lab.spec.guest_uuid(name): float(180 << 20) for name in GUESTS},
            HOST_CPU: {GUESTS[name]: value + 0.05 for name, value in cores.items()},
            HOST_MEMORY: {host.name: float(300 << 20) for host in lab.hosts},
        }
        history.append(at, values)
        at += night.step
    history.close()


def power(daemon: DaemonOnLab) -> dict[str, Any]:
    return {row["host"]: row for row in daemon.ask("power", "status")["hosts"]}


def waking_reasons(daemon: DaemonOnLab) -> list[str]:
    """Why hosts were woken, in the order of the log; the wake tests left out."""
    found = []
    for line in daemon.log.read_text(errors="replace").splitlines():
        told = json.loads(line) if line.startswith("{") else {}
        if told.get("event") == "power" and told["phase"] == "waking" and told["was"] != "waking":
            found.append(f"{told['host']}: {told['reason']}")
    return [why for why in found if "wake test" not in why]


def phases(daemon: DaemonOnLab) -> dict[str, str]:
    return {host: row["phase"] for host, row in power(daemon).items()}


def last_night(daemon: DaemonOnLab) -> dict[str, Any]:
    return dict(daemon.ask("power", "report")["nights"][0])


def off(lab: Lab) -> set[str]:
    return {host.name for host in lab.hosts if host.holder_pid() is None}


def places(lab: Lab) -> dict[str, str | None]:
    return {name: lab.find(name) for name in GUESTS}


def beats_of(lab: Lab, name: str) -> list[Heartbeat]:
    """All that a guest ever said, on whatever host it was."""
    found = []
    for host in lab.hosts:
        console = lab._console(host, name)
        if console.exists():
            found += parse_heartbeats(console.read_text(errors="replace"), 0.0)
    return sorted(found, key=lambda beat: beat.count)


def pass_wake_tests(daemon: DaemonOnLab) -> int:
    """Both hosts, empty as all are, go to sleep and come back by order. Returns how many times slower than usual."""
    begun = time.monotonic()
    daemon.start()
    daemon.wait(lambda: daemon.ask("status")["cycle"] is not None, 60, "a first cycle")
    took = time.monotonic() - begun
    slow = min(SLOWEST, 1 + int(took / QUIET_START_SECONDS))
    print(f"\nthe daemon's first cycle came after {took:.1f} s: all is stretched by {slow}")
    for host in SLEEPERS:
        daemon.wait(lambda h=host: daemon.cli("power", "test", h).returncode == 0, 60, f"the test of {host} begins")
    daemon.wait(
        lambda: all(power(daemon)[h]["tested_at"] and power(daemon)[h]["phase"] == "awake" for h in SLEEPERS),
        180,
        "both hosts passed their wake test",
    )
    assert daemon.stop() == 0
    return slow


def test_a_night_folds_sleeps_wakes_by_forecast_and_unfolds(
    lab: Lab,
    make_guest: Callable[..., GuestSpec],
    switches: Switches,
    daemon: DaemonOnLab,
    capsys: pytest.CaptureFixture[str],
    record_property: Callable[[str, object], None],
) -> None:
    configure(daemon, switches, None)
    slow = pass_wake_tests(daemon)
    assert [(host, state) for _, host, state, _ in switches.seen].count(("h2", "Off")) == 1

    for name, host in GUESTS.items():
        make_guest(name=name, host=host)
    night = Night.soon(slow)

    def told(what: str) -> None:
        print(f"{time.time() - night.begins:+7.1f} s  {what}")

    write_past_days(daemon, lab, night)
    configure(daemon, switches, night)
    daemon.start()
    told(
        f"the daemon is up; window of {night.ends - night.begins:.0f} s, morning at {night.morning - night.begins:+.0f} s"
    )

    daemon.wait(lambda: set(off(lab)) == set(SLEEPERS), night.morning - time.time(), "two hosts are powered off")
    told(f"h2 and h3 are powered off; {places(lab)}")
    assert set(places(lab).values()) == {"h1"}
    daemon.wait(lambda: [phases(daemon)[h] for h in SLEEPERS] == ["asleep"] * 2, 60, "the daemon has seen them off")
    told("and asleep by the daemon's word")
    print(daemon.cli("power", "status").stdout)

    daemon.wait(lambda: not off(lab), night.morning - time.time() + 30, "both are powered on again")
    daemon.wait(lambda: set(phases(daemon).values()) == {"awake"}, 60, "both are awake")
    woken = power(daemon)
    told("both are awake: " + woken["h2"]["reason"])
    reasons = waking_reasons(daemon)
    for why in reasons:
        told(why)
    assert {why.partition(":")[0] for why in reasons} == set(SLEEPERS)
    assert all("demand may reach" in why for why in reasons), "woken by forecast"
    ordered = [at for at, _, state, _ in switches.seen if state == "On"][-2:]
    assert max(ordered) < night.morning, "powered on before the morning's load"

    time.sleep(max(0.0, night.morning - time.time()))
    told(f"the morning's load begins; {places(lab)}")
    for name in GUESTS:
        lab.set_load(name, BUSY)
    daemon.wait(lambda: len(set(places(lab).values())) == 3, 120 * slow, "unfolded")
    told(f"unfolded; {places(lab)}")
    daemon.wait(lambda: last_night(daemon)["ended_at"] is not None, night.ends + 120 - time.time(), "the night is over")
    account = last_night(daemon)
    with capsys.disabled():
        print("\n" + daemon.cli("power", "report").stdout)
    record_property("saved_kwh", account["saved_kwh"])
    asleep = dict(account["asleep_seconds"])
    assert set(asleep) == set(SLEEPERS) and min(asleep.values()) > 10
    # all that is saved is the idle power of the two, less what the moves drew
    saved = sum(asleep.values()) * 120 / 3.6e6 - account["moves_kwh"]
    assert account["saved_kwh"] == pytest.approx(saved, rel=0.25) and account["saved_kwh"] > 0
    assert account["moves"] >= 4

    ended = daemon.migrations()
    for record in ended:
        told(f"moved {record.vm_name} from {record.source} to {record.destination}: {record.state}")
    assert all(record.state is MigrationState.SUCCEEDED for record in ended)
    off_with = [(host, qemu) for _, host, state, qemu in switches.seen if state == "Off"]
    assert not any(qemu for _, qemu in off_with), "no guest on a host that was powered off"
    assert switches.errors == []
    # the wake tests and the night
    assert sorted(host for host, _ in off_with) == sorted(SLEEPERS * 2)
    for name in GUESTS:
        beats = beats_of(lab, name)
        assert len({beat.boot_id for beat in beats}) == 1, f"{name} was restarted"
        told(f"{name}: {len(beats)} heartbeats, {beats[0].count} to {beats[-1].count}")
        assert max(b.count - a.count for a, b in pairwise(beats)) <= 3, f"{name} counted on, all night"
        assert time.time() - lab.counter(name).at < 30, f"{name} counts on"
    assert daemon.stop() == 0
