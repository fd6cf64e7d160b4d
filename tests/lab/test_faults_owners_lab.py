"""Other hands on a guest while it is moved, and before: its owner's, an operator's, another program's."""

import os
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest

from rebalancerd.cli.exits import CliError
from rebalancerd.cluster.migration import MigrationState
from tests.lab.after import Known, known_to, until
from tests.lab.strike import Strike

pytestmark = pytest.mark.lab_full


def test_fault_14_stopped_by_its_owner_in_mid_migration(strike: Strike) -> None:
    """It stays off: nobody is blamed, and it is not started."""
    struck = strike.under_way()
    assert strike.virsh(struck.source, "destroy", "traveller").returncode == 0

    record = strike.verdict(struck)

    assert record.state is MigrationState.VM_STOPPED, record
    strike.whole(struck, lost=["traveller"])
    assert "HOST_QUARANTINED" not in strike.codes()
    assert "LINK_QUARANTINED" not in strike.codes()


def test_fault_15_paused_and_resumed_by_its_owner(strike: Strike) -> None:
    """libvirt pauses a guest in mid-migration, and resumes none before it has ended: the owner's word after that holds."""
    struck = strike.under_way()
    assert strike.virsh(struck.source, "suspend", "traveller").returncode == 0
    strike.virsh(struck.source, "resume", "traveller")
    strike.lab.shape(struck.source)

    record = strike.verdict(struck)

    assert record.state in (MigrationState.SUCCEEDED, MigrationState.DEGRADED, MigrationState.FAILED), record
    for host in strike.lab.hosts:
        strike.virsh(host.name, "resume", "traveller")
    strike.whole(struck)


def test_fault_16_renamed_and_undefined_in_mid_migration(strike: Strike) -> None:
    """libvirt renames no guest that runs. One whose definition is removed under way is found by its UUID all the same."""
    struck = strike.under_way()
    assert strike.virsh(struck.source, "domrename", "traveller", "nomad").returncode != 0
    strike.virsh(struck.source, "undefine", "traveller")

    record = strike.verdict(struck)

    assert record.state is MigrationState.SUCCEEDED, record
    assert strike.whole(struck)["traveller"] == struck.destination


def test_fault_18_hot_plugged_in_mid_migration(strike: Strike, tmp_path: Path) -> None:
    """libvirt keeps devices as they are for as long as the copy runs, and the move is not disturbed by the attempt."""
    device = tmp_path / "device.xml"
    device.write_text("<rng model='virtio'><backend model='random'>/dev/urandom</backend></rng>")
    struck = strike.under_way()
    plugging = threading.Thread(
        target=strike.virsh, args=(struck.source, "attach-device", "traveller", str(device), "--live")
    )
    plugging.start()

    record = strike.verdict(struck)
    plugging.join(60)

    assert record.state is MigrationState.SUCCEEDED, record
    assert strike.whole(struck)["traveller"] == struck.destination


def test_fault_19_another_job_on_the_domain(strike: Strike, tmp_path: Path) -> None:
    """A dump that takes its time holds the domain: nothing is begun until it has ended."""
    source = strike.guest()
    strike.ready()
    before = {"traveller": strike.lab.counter("traveller")}
    known = {r.id for r in strike.daemon.migrations()}
    pipe = tmp_path / "dump"
    os.mkfifo(pipe)
    slowly = f"import time\nwith open({str(pipe)!r}, 'rb') as f:\n    while f.read(65536):\n        time.sleep(0.2)"
    reader = subprocess.Popen([sys.executable, "-c", slowly])
    words = ["virsh", "-c", strike.lab.host(source).uri, "dump", "traveller", str(pipe), "--live"]
    dump = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        until("the dump holds the domain", lambda: None if busy(strike, source) else ended(dump), 60)
        strike.order()
        until("it is told as busy", lambda: None if "vm_busy" in why(strike) else why(strike))
        assert dump.poll() is None, "the dump has not ended meanwhile"
        assert [r for r in strike.since(known) if r.state is not MigrationState.ABANDONED] == []
    finally:
        reader.kill()
        reader.wait()
        dump.communicate(timeout=120)

    strike.whole(before)


def ended(process: "subprocess.Popen[bytes]") -> str:
    if process.poll() is None or process.stdout is None:
        return "no job yet"
    return f"ended with {process.returncode}: {process.stdout.read().decode()}"


def busy(strike: Strike, host: str) -> bool:
    return any(k.job for k in known_to(strike.lab.host(host)))


def why(strike: Strike) -> str:
    """What is told of the guest and of the last cycle."""
    return str(strike.daemon.get("explain/vm", subject="traveller")) + str(strike.daemon.get("explain/cycle"))


@pytest.mark.parametrize("share", [0.3, 0.97])
def test_fault_22_abort_races_completion(strike: Strike, share: float) -> None:
    """Early it is aborted; late either may win. Where it runs decides, and nothing else."""
    struck = strike.under_way(share)
    with suppress(CliError):  # it may have ended by now
        strike.daemon.post("abort", vm="traveller")

    record = strike.verdict(struck)

    assert record.state in {MigrationState.ABORTED} | ({MigrationState.SUCCEEDED} if share > 0.9 else set()), record
    strike.whole(struck)


def test_fault_24_active_on_both_hosts(strike: Strike) -> None:
    """Somebody started a second copy of it: it is told, nothing is done to either, and nothing begins until a person says so."""
    source = strike.guest()
    strike.ready()
    before = {"traveller": strike.lab.counter("traveller")}
    known = {r.id for r in strike.daemon.migrations()}
    other = next(h for h in strike.lab.spec.host_names if h != source)
    with strike.lab.host(source).connected() as connection:
        xml = connection.lookupByName("traveller").XMLDesc()
    with strike.lab.host(other).connected() as connection:
        copy = connection.createXML(xml)
        try:
            until("it is on record", lambda: None if [r for r in strike.since(known) if not r.ours] else "not yet", 60)
            strike.told("VM_IN_DANGER", 60)
            strike.told("BREAKER_OPEN", 60)
            strike.order()
            strike.daemon.post("close-breaker")  # too early
            until("it is refused all the same", lambda: None if "duplicate_vm" in why(strike) else why(strike), 60)
            strike.told("BREAKER_OPEN", 60)
            assert sorted(k.host for k in copies(strike)) == sorted([source, other])
            assert not any(k.paused for k in copies(strike))
        finally:
            copy.destroy()
            time.sleep(3)  # until the last word on a console is the first one's again

    begun = [r for r in strike.since(known) if r.ours]
    assert begun == []
    assert {r.state for r in strike.since(known)} == {MigrationState.DUPLICATED}
    strike.whole(before, by_hand=["traveller"], alerts=["VM_IN_DANGER", "BREAKER_OPEN"])


def copies(strike: Strike) -> list[Known]:
    """The guest as every host that has it running knows it."""
    everywhere = [k for host in strike.lab.hosts for k in known_to(host)]
    return [k for k in everywhere if k.uuid == strike.uuid() and k.active]


def test_fault_25_on_neither_host(strike: Strike) -> None:
    """Ended and undefined while it was moved: no host has it. Nothing more is begun until a person has looked."""
    struck = strike.under_way()
    strike.freeze_daemon()  # so that it sees nothing in between
    strike.kill_qemu(struck.source)
    until("it is undefined", lambda: strike.virsh(struck.source, "undefine", "traveller").returncode, 60)
    strike.wake_daemon()

    record = strike.verdict(struck)

    assert record.state is MigrationState.MISSING, record
    strike.told("VM_IN_DANGER")
    strike.told("BREAKER_OPEN")
    strike.whole(struck, lost=["traveller"], alerts=["VM_IN_DANGER", "BREAKER_OPEN"])


def test_fault_61_an_operator_migrates_it_first(strike: Strike) -> None:
    """Theirs is counted and left alone; ours begins when it has ended, if it is still wanted."""
    source = strike.guest()
    strike.ready()
    before = {"traveller": strike.lab.counter("traveller")}
    known = {r.id for r in strike.daemon.migrations()}
    target = next(h for h in strike.lab.spec.host_names if h != source)
    strike.lab.shape(source, rate_mbit=24)
    theirs = subprocess.Popen(by_hand(strike, source, target), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    until("theirs runs", lambda: None if strike.share(source) > 0.05 else theirs.poll() or "not yet", 60)
    strike.order()
    strike.told("FOREIGN_MIGRATION")
    assert [r for r in strike.since(known) if r.ours and r.state is not MigrationState.ABANDONED] == []
    strike.lab.shape(source)
    assert theirs.wait(120) == 0

    assert strike.whole(before, by_hand=["traveller"], autostart=[])["traveller"] == target
    assert strike.virsh(target, "autostart", "traveller").returncode == 0  # which their migration lost


def test_fault_61_an_operator_migrates_it_too(strike: Strike) -> None:
    """libvirt has one job on a domain at a time: theirs is refused, ours arrives."""
    struck = strike.under_way()
    theirs = subprocess.Popen(
        by_hand(strike, struck.source, struck.destination), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )

    record = strike.verdict(struck)

    assert theirs.wait(120) != 0
    assert record.state is MigrationState.SUCCEEDED, record
    assert strike.whole(struck)["traveller"] == struck.destination


def by_hand(strike: Strike, source: str, target: str) -> list[str]:
    one, two = strike.lab.host(source), strike.lab.host(target)
    flags = ["--live", "--p2p", "--persistent", "--undefinesource"]
    return ["virsh", "-c", one.uri, "migrate", *flags, "traveller", two.peer_uri, f"tcp://{two.migration_address}"]
