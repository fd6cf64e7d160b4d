"""Run as root inside the room: becomes an account and tries calls of rebalancerd's own adapters on the libvirtd there.

Prints JSON: what was tried → "done", or libvirt's error code.
"""

import json
import os
import sys
import threading
from collections.abc import Callable

import libvirt

from rebalancerd.act.libvirt_write import LibvirtWrite
from rebalancerd.clock import SystemClock
from rebalancerd.cluster.migration import MigrationRecord, MigrationState
from rebalancerd.observe import libvirt_connection, libvirt_facts, libvirt_inventory, libvirt_read  # noqa: F401
from rebalancerd.observe.libvirt_probe import LibvirtProbe
from rebalancerd.observe.libvirt_read import LibvirtRead
from rebalancerd.observe.settings import HostSettings, ObserveSettings
from rebalancerd.ports import HostError, HostRefusedError

UUID = "6695eb01-f6a4-8304-79aa-97f2502e193f"
OTHER = "6695eb01-f6a4-8304-79aa-97f2502e1940"
HOST = HostSettings(
    name="h1", uri="qemu:///system", migration_uri="tcp://127.0.0.1", peer_uri="qemu+tcp://127.0.0.1/system"
)
DOMAIN = """<domain type='qemu'><name>{name}</name><uuid>{uuid}</uuid><memory>65536</memory><vcpu>1</vcpu>
<os><type arch='x86_64' machine='q35'>hvm</type></os><devices><emulator>/usr/bin/qemu-system-x86_64</emulator></devices></domain>"""


def tried(call: Callable[[], object]) -> object:
    """ "done", or the code of libvirt's error."""
    try:
        call()
    except libvirt.libvirtError as error:
        return error.get_error_code()
    except HostRefusedError as error:
        return error.code
    except HostError as error:
        return str(error)
    return "done"


def record(uuid: str) -> MigrationRecord:
    """A migration of a VM to the host where it is."""
    return MigrationRecord(
        id="m1",
        vm_uuid=uuid,
        vm_name="web",
        source="h1",
        destination="h1",
        state=MigrationState.INTENT,
        intent_at=0.0,
        autostart=True,
    )


def define() -> None:
    """As root: two domains that do not run."""
    libvirt_connection.start_event_loop()
    connection = libvirt.open("qemu:///system")
    for name, uuid in (("web", UUID), ("other", OTHER)):
        connection.defineXML(DOMAIN.format(name=name, uuid=uuid))
    connection.close()


def rebalancerds_own(uuid: str) -> dict[str, object]:
    """What the daemon does."""
    settings, clock = ObserveSettings(call_deadline_seconds=60.0), SystemClock()
    read, probe = LibvirtRead([HOST], settings, clock), LibvirtProbe([HOST], settings, clock)
    write = LibvirtWrite([HOST], settings, clock)

    def migrate() -> None:
        handle = write.migrate(record(uuid))
        returned = threading.Event()
        handle.when_done(returned.set)
        assert returned.wait(60.0)
        error = handle.error()
        assert error is not None, "a VM that does not run cannot be migrated"
        raise error

    def compare() -> None:
        connection = libvirt_connection.open_read_write(HOST)
        cpu = "<cpu mode='custom' match='exact'><model>qemu64</model></cpu>"
        connection.compareHypervisorCPU(None, "x86_64", "q35", "qemu", cpu, 0)

    return {
        "read": tried(lambda: read.sample("h1")),
        "probe": tried(lambda: probe.start_dirty_rate("h1", uuid, 1)),
        "cpu": tried(lambda: probe.cpu_fit(uuid, "h1", "h1")),
        "compare": tried(compare),
        "migrate": tried(migrate),
        "abort": tried(lambda: write.abort("h1", uuid)),
        "downtime": tried(lambda: write.set_max_downtime("h1", uuid, 0.1)),
        "bandwidth": tried(lambda: write.set_bandwidth("h1", uuid, 2e6)),
        "autostart": tried(lambda: write.set_autostart("h1", uuid, False)),
    }


def never(uuid: str) -> dict[str, object]:
    """What no account of rebalancerd may do, on the freest connection it gets."""
    try:
        connection = libvirt.open("qemu:///system")
    except libvirt.libvirtError:
        connection = libvirt.openReadOnly("qemu:///system")
    domain = connection.lookupByUUIDString(uuid)
    return {
        "start": tried(domain.create),
        "destroy": tried(domain.destroy),
        "shutdown": tried(domain.shutdown),
        "suspend": tried(domain.suspend),
        "undefine": tried(domain.undefine),
        "define": tried(lambda: connection.defineXML(DOMAIN.format(name="new", uuid=OTHER[:-1] + "9"))),
        "rename": tried(lambda: domain.rename("else", 0)),
        "secrets": tried(lambda: domain.XMLDesc(libvirt.VIR_DOMAIN_XML_SECURE)),
    }


def forced(command: str, uuid: str) -> dict[str, object]:
    """What comes of a read-write connection by ssh where the key's command is the read-only helper."""
    connection = libvirt.open(f"qemu+ssh://any/system?proxy=native&command={command}")
    domain = connection.lookupByUUIDString(uuid)
    return {
        "read": tried(domain.info),
        "autostart": tried(lambda: domain.setAutostart(0)),
        "destroy": tried(domain.destroy),
    }


def main() -> None:
    """``define``; or the number of a user, the UUID of a domain, and a stand-in for ssh if one is to be tried."""
    libvirt.registerErrorHandler(lambda *_: None, None)
    if sys.argv[1] == "define":
        define()
        return
    uid = int(sys.argv[1])
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
    os.environ["HOME"] = "/nonexistent"
    if len(sys.argv) > 3:
        print(json.dumps(forced(sys.argv[3], sys.argv[2])))
        return
    print(json.dumps({**rebalancerds_own(sys.argv[2]), **never(sys.argv[2])}))


if __name__ == "__main__":
    main()
    sys.stdout.flush()
    os._exit(0)
