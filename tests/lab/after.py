"""What must hold after every fault, whatever it was: looked at on the hosts themselves, in the ledger, and at the daemon.

Every guest that can be alive is, at exactly one place, with its counter unbroken; nothing is defined twice and no QEMU is
left over; ledger and libvirt tell the same; no two migrations of a VM overlap; the daemon decides again over usable hosts.
"""

import sqlite3
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import libvirt

from rebalancerd.cli.exits import CliError
from rebalancerd.cluster.migration import MigrationRecord, MigrationState
from rebalancerd.lab import Heartbeat, Lab, LabHost
from tests.lab.daemon_on_lab import DaemonOnLab

PATIENCE_SECONDS = 150.0  # the machine is slow and shared; a bound against hanging, not a promise
MOVED = frozenset({MigrationState.SUCCEEDED, MigrationState.DEGRADED})
STAYED = frozenset({MigrationState.FAILED, MigrationState.ABORTED, MigrationState.ABANDONED})


@dataclass(frozen=True)
class Known:
    """A domain as one host knows it."""

    host: str
    uuid: str
    name: str
    active: bool
    paused: bool
    persistent: bool
    autostart: bool
    job: bool


def known_to(host: LabHost) -> list[Known]:
    """Every domain of a host, active or not."""
    found = []
    with host.connected() as connection:
        for domain in connection.listAllDomains():
            try:
                active = bool(domain.isActive())
                found.append(
                    Known(
                        host=host.name,
                        uuid=domain.UUIDString(),
                        name=domain.name(),
                        active=active,
                        paused=domain.state()[0] == libvirt.VIR_DOMAIN_PAUSED,
                        persistent=bool(domain.isPersistent()),
                        autostart=bool(domain.isPersistent() and domain.autostart()),
                        job=active and has_job(domain),
                    )
                )
            except libvirt.libvirtError as error:
                if error.get_error_code() != libvirt.VIR_ERR_NO_DOMAIN:
                    raise
    return found


def has_job(domain: libvirt.virDomain) -> bool:
    """Whether a job runs on it. libvirt tells nothing of an incoming migration but that there is one."""
    try:
        return bool(domain.jobInfo()[0] != libvirt.VIR_DOMAIN_JOB_NONE)
    except libvirt.libvirtError as error:
        if "only on the source" not in str(error):
            raise
        return True


def emulators(host: LabHost) -> int:
    """QEMU processes on a host that run guests; those that libvirt asks for their capabilities are none."""
    count = 0
    for pid in host.cgroup.pids():
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if words and words[0].endswith(b"qemu-system-x86_64") and any(w.startswith(b"guest=") for w in words):
            count += 1
    return count


def until(what: str, reached: Callable[[], object], seconds: float = PATIENCE_SECONDS) -> None:
    """Wait for something that must come. ``reached`` returns what is still wrong: false, if nothing is."""
    deadline = time.monotonic() + seconds
    wrong: object = True
    while time.monotonic() < deadline:
        wrong = reached()
        if not wrong:
            return
        time.sleep(0.5)
    raise AssertionError(f"{what}: not within {seconds:g} s: {wrong}")


def assert_whole(
    daemon: DaemonOnLab,
    before: Mapping[str, Heartbeat],
    *,
    lost: Collection[str] = (),
    paused: Collection[str] = (),
    autostart: Collection[str] = (),
    by_hand: Collection[str] = (),
    alerts: Collection[str] = (),
    earlier: Collection[str] = (),
    stopped: bool = False,
) -> dict[str, str]:
    """Check everything; returns where each living guest runs.

    Args:
        daemon: on the lab's hosts, running unless ``stopped``.
        before: what each guest said last before the fault.
        lost: guests that the fault ended: they may be defined once, and run nowhere.
        paused: guests that somebody paused, and that must stay so.
        autostart: guests that must have the flag where they are.
        by_hand: guests that somebody else moved or restarted, about whose place the ledger need not know.
        alerts: health codes of severity err that are right now.
        earlier: what errors may be about because an earlier fault left it so: ids of migrations.
        stopped: the daemon is to be down.
    """
    lab = daemon.lab
    until("no open migration in the ledger", lambda: [r for r in daemon.migrations() if r.state.is_open])
    until("one place for each guest", lambda: wrong_places(lab, before, lost, paused, autostart))
    until("no QEMU without its domain", lambda: leftovers(lab))
    places = {k.name: k.host for host in lab.hosts for k in known_to(host) if k.active}
    living = [name for name in before if name not in lost]
    for name in living:
        if name in paused:
            continue
        until(f"{name} counts on", lambda name=name: stands_still(lab, name, before[name]))
    assert overlaps(daemon.migrations()) == []
    for name in living:
        if name not in by_hand:
            assert disagreement(lab, daemon.migrations(), name, places[name]) == ""
    assert ledger_damage(daemon.directory / "state" / "ledger.sqlite") == ""
    if not stopped:
        until("the daemon is well", lambda: unwell(daemon, alerts, earlier))
    return places


def wrong_places(
    lab: Lab,
    before: Collection[str],
    lost: Collection[str],
    paused: Collection[str],
    autostart: Collection[str],
) -> list[str]:
    """What is not as it should be about where the guests are."""
    everywhere = [k for host in lab.hosts for k in known_to(host)]
    wrong = []
    for name in before:
        here = [k for k in everywhere if k.uuid == lab.spec.guest_uuid(name)]
        active = [k for k in here if k.active]
        if len(here) > 1:
            wrong.append(f"{name} is known to {[k.host for k in here]}")
        if name in lost:
            wrong += [f"{name} runs on {k.host}" for k in active]
            continue
        if len(active) != 1:
            wrong.append(f"{name} runs on {[k.host for k in active]}")
            continue
        (only,) = active
        if only.paused != (name in paused):
            wrong.append(f"{name} is {'paused' if only.paused else 'not paused'} on {only.host}")
        if only.job:
            wrong.append(f"{name} still has a job on {only.host}")
        if only.persistent != lab.guest(name).persistent:
            wrong.append(f"{name}: persistent is {only.persistent} on {only.host}")
        if only.autostart != (name in autostart):
            wrong.append(f"{name}: autostart is {only.autostart} on {only.host}")
    return wrong


def leftovers(lab: Lab) -> list[str]:
    """Hosts with a QEMU that their libvirt does not know, or the other way round."""
    counts = {host.name: (emulators(host), sum(k.active for k in known_to(host))) for host in lab.hosts}
    return [
        f"{name}: {processes} QEMU, {domains} domains"
        for name, (processes, domains) in counts.items()
        if processes != domains
    ]


def stands_still(lab: Lab, name: str, beat: Heartbeat) -> str:
    """Why the guest's counter is not the one from before, further on; empty if it is."""
    if lab.panicked(name):
        return f"{name}: its kernel panicked"
    now = lab.counter(name)
    assert now.boot_id == beat.boot_id, f"{name} was restarted"
    assert now.count >= beat.count, f"{name} was set back from {beat.count} to {now.count}"
    fresh = time.time() - now.at < 5.0
    return (
        "" if fresh and now.count > beat.count else f"{name} is at {now.count}, said {time.time() - now.at:.0f} s ago"
    )


def overlaps(records: Collection[MigrationRecord]) -> list[str]:
    """Migrations of one VM, ours, that were under way at the same time."""
    wrong = []
    by_vm: dict[str, list[MigrationRecord]] = {}
    for record in sorted(records, key=lambda r: r.intent_at):
        if record.ours:
            by_vm.setdefault(record.vm_uuid, []).append(record)
    for moves in by_vm.values():
        for one, two in pairwise(moves):
            if one.ended_at is None or two.intent_at < one.ended_at - 1.0:
                wrong.append(f"{two.id} began before {one.id} had ended")
    return wrong


def disagreement(lab: Lab, records: Collection[MigrationRecord], name: str, place: str) -> str:
    """Where the ledger's last word on a guest is not where it runs; empty if they agree."""
    uuid = lab.spec.guest_uuid(name)
    last = max((r for r in records if r.vm_uuid == uuid), key=lambda r: r.intent_at, default=None)
    if last is None:
        return ""
    expected = last.destination if last.state in MOVED else last.source if last.state in STAYED else None
    return (
        ""
        if expected in (place, None)
        else f"{name} runs on {place}, the ledger says {last.state} ({last.source} to {last.destination})"
    )


def ledger_damage(path: Path) -> str:
    """What SQLite says against the ledger's file; empty if nothing."""
    connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    try:
        found = [str(row[0]) for row in connection.execute("PRAGMA integrity_check")]
        strays = connection.execute("PRAGMA foreign_key_check").fetchall()
    finally:
        connection.close()
    return "" if found == ["ok"] and not strays else f"{found} {strays}"


def unwell(daemon: DaemonOnLab, alerts: Collection[str] = (), earlier: Collection[str] = ()) -> list[str]:
    """Why the daemon is not back in order: errors it tells that are not right now, hosts it cannot use, no new cycle."""
    try:
        status = daemon.get("status")
    except CliError as error:
        return [f"no status: {error}"]
    errors = [c for c in status["checks"] if c["severity"] == "err" and c["subject"] not in earlier]
    wrong = [f"{c['code']}: {c['message']}" for c in errors if c["code"] not in alerts]
    if status["cycle"] is None or time.time() - status["cycle"]["at"] > 60:
        wrong.append("no fresh cycle")
    wrong += [f"{h['name']}: {h['unusable']}" for h in status["hosts"] if h["unusable"]]
    if {h["name"] for h in status["hosts"]} != set(daemon.lab.spec.host_names):
        wrong.append(f"hosts {[h['name'] for h in status['hosts']]}")
    if status["moving"]:
        wrong.append("still moving")
    return wrong
