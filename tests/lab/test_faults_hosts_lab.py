"""Hosts and links that fail while a migration runs between them."""

import signal
import subprocess
import time

import pytest

from rebalancerd.cluster.migration import MigrationState
from rebalancerd.lab import delay_available
from tests.lab.after import known_to, until
from tests.lab.strike import Strike

pytestmark = pytest.mark.lab_full


def die(strike: Strike, host: str) -> None:
    """The power of a host fails: nothing is sent any more, then nothing runs any more."""
    strike.lab.cut(host)
    strike.kill_qemu(host)
    strike.lab.kill_libvirtd(host, signal.SIGKILL)


def come_back(strike: Strike, host: str) -> None:
    strike.lab.heal(host)
    strike.lab.start_libvirtd(host)


def test_fault_01_source_host_dies(strike: Strike) -> None:
    """The guest died with its host: it is told, looked for, and not started anywhere."""
    struck = strike.under_way()
    die(strike, struck.source)

    record = strike.verdict(struck)

    assert record.state is MigrationState.LOST_SOURCE, record
    strike.told("SOURCE_LOST")
    come_back(strike, struck.source)
    strike.whole(struck, lost=["traveller"], alerts=["SOURCE_LOST"])
    assert strike.since(set())[-1].id == record.id, "not retried"


def test_fault_02_destination_host_dies(strike: Strike) -> None:
    """It stays, the dead host receives nothing, and the drain goes on to the third."""
    struck = strike.under_way()
    die(strike, struck.destination)

    record = strike.verdict(struck)

    assert record.state is MigrationState.FAILED, record
    strike.lab.shape(struck.source)
    (third,) = set(strike.lab.spec.host_names) - {struck.source, struck.destination}
    until("it found another host", lambda: None if strike.lab.find("traveller") == third else "not yet")
    come_back(strike, struck.destination)
    assert strike.whole(struck)["traveller"] == third


def test_fault_03_link_between_the_hosts_cut(strike: Strike) -> None:
    """Both hosts answer us, so the way between them is to blame, and neither of them."""
    struck = strike.under_way()
    one, two = strike.lab.host(struck.source), strike.lab.host(struck.destination)
    for host, peer in ((one, two), (two, one)):
        command = host.link.in_host("ip", "route", "add", "blackhole", f"{peer.address}/32")
        subprocess.run(command, check=True)
    try:
        record = strike.verdict(struck)
        strike.told("LINK_QUARANTINED")
        assert "HOST_QUARANTINED" not in strike.codes()
    finally:
        for host, peer in ((one, two), (two, one)):
            subprocess.run(host.link.in_host("ip", "route", "del", "blackhole", f"{peer.address}/32"), check=True)

    assert record.state is MigrationState.FAILED, record
    assert record.reason.startswith("transport"), record.reason
    strike.whole(struck)


def test_fault_03_lossy_link(strike: Strike) -> None:
    """One packet in fifty is lost both ways: it takes its time and arrives."""
    strike.guest()
    struck = strike.under_way(0.05, mbit=60)
    link = strike.lab.host(struck.source).link
    if delay_available():
        lose = [("tc", "qdisc", "replace", "dev", "eth0", "root", "netem", "loss", "2%")]
        undo = [("tc", "qdisc", "del", "dev", "eth0", "root")]
    else:  # a kernel without netem
        rule = ("-m", "statistic", "--mode", "random", "--probability", "0.02", "-j", "DROP")
        lose = [("iptables", "-A", chain, "-p", "tcp", *rule) for chain in ("INPUT", "OUTPUT")]
        undo = [("iptables", "-F")]
    try:
        for words in lose:
            subprocess.run(link.in_host(*words), check=True)
        record = strike.verdict(struck, 300)
    finally:
        for words in undo:
            subprocess.run(link.in_host(*words), check=False)

    assert record.state is MigrationState.SUCCEEDED, record
    strike.whole(struck)


def test_fault_04_controller_cut_off_from_the_source(strike: Strike) -> None:
    """It goes on without being seen: nothing is assumed, nothing begun, and it is judged when the source is seen again."""
    struck = strike.under_way()
    strike.cut_controller(struck.source)
    strike.told("UNOBSERVED_MIGRATION")
    strike.lab.shape(struck.source)
    time.sleep(10)
    assert strike.record(struck).state is MigrationState.UNOBSERVED
    assert strike.since(set())[-1].id == struck.record.id
    strike.heal_controller()

    record = strike.verdict(struck)

    assert record.state is MigrationState.SUCCEEDED, record
    assert strike.whole(struck)["traveller"] == struck.destination


def test_fault_04_controller_cut_off_from_the_destination(strike: Strike) -> None:
    struck = strike.under_way()
    strike.cut_controller(struck.destination)
    strike.lab.shape(struck.source)
    strike.told("UNOBSERVED_MIGRATION")
    strike.heal_controller()

    record = strike.verdict(struck)

    assert record.state is MigrationState.SUCCEEDED, record
    assert strike.whole(struck)["traveller"] == struck.destination


def test_fault_39_a_host_of_which_nothing_fresh_is_known(strike: Strike) -> None:
    """Its libvirtd hangs: it is neither source nor destination, and the drain goes elsewhere."""
    source = strike.guest()
    strike.ready()
    before = {"traveller": strike.lab.counter("traveller")}
    silent, third = sorted(set(strike.lab.spec.host_names) - {source})
    strike.lab.kill_libvirtd(silent, signal.SIGSTOP)
    try:
        until("it is told as unusable", lambda: None if silent in unusable(strike) else strike.codes())
        strike.order()
        until("it went to the third", lambda: None if strike.lab.find("traveller") == third else "not yet")
    finally:
        strike.lab.kill_libvirtd(silent, signal.SIGCONT)

    assert strike.whole(before)["traveller"] == third


def test_fault_41_most_of_the_cluster_is_invisible(strike: Strike) -> None:
    """With two of three hosts out of sight nothing is planned; it goes on by itself when they are back."""
    source = strike.guest()
    strike.ready()
    before = {"traveller": strike.lab.counter("traveller")}
    silent = sorted(set(strike.lab.spec.host_names) - {source})
    known = {r.id for r in strike.daemon.migrations()}
    for host in silent:
        strike.lab.kill_libvirtd(host, signal.SIGSTOP)
    try:
        strike.told("CLUSTER_PARTLY_UNKNOWN")
        strike.order()
        time.sleep(10)
        assert [r for r in strike.since(known) if r.state is not MigrationState.ABANDONED] == []
    finally:
        for host in silent:
            strike.lab.kill_libvirtd(host, signal.SIGCONT)

    until("the drain is carried out", lambda: None if strike.lab.find("traveller") in silent else "not yet")
    strike.whole(before)


def test_fault_43_a_host_that_came_back_has_to_be_stable_first(strike: Strike) -> None:
    source = strike.guest()
    strike.ready()
    before = {"traveller": strike.lab.counter("traveller")}
    flapping, third = sorted(set(strike.lab.spec.host_names) - {source})
    for _ in range(2):
        strike.lab.kill_libvirtd(flapping, signal.SIGKILL)
        until("it is missed", lambda: None if flapping in unusable(strike) else "not yet")
        strike.lab.start_libvirtd(flapping)
    strike.order(None)
    until("it went to the stable one", lambda: None if strike.lab.find("traveller") == third else "not yet")
    assert [k.name for k in known_to(strike.lab.host(flapping))] == []

    strike.whole(before)


def unusable(strike: Strike) -> list[str]:
    return [h["name"] for h in strike.daemon.get("status")["hosts"] if h["unusable"]]
