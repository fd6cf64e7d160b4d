"""The shipped polkit rules, judged by polkitd itself and by a libvirtd that asks it for every call."""

import json
import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.security import polkit_room
from tests.security.polkit_client import OTHER, UUID
from tests.security.polkit_room import ACTIONS, RULES, UIDS, PolkitRoom

WHY_NOT = polkit_room.missing()
pytestmark = pytest.mark.skipif(WHY_NOT is not None, reason=str(WHY_NOT))

READS = {
    "connect.getattr", "connect.read", "domain.getattr", "domain.read", "network.getattr", "network.read",
    "storage-pool.getattr", "storage-pool.read", "secret.getattr", "nwfilter.getattr", "nwfilter.read",
}  # fmt: skip
ACTS = {"domain.migrate", "domain.write", "connect.write"}
FORBIDDEN = re.compile(r"domain\.(?!getattr$|read$|migrate$|write$)|secret\.read|\.(save|delete|format|start|stop)$")
ACCESS_DENIED, READ_ONLY, INVALID, AUTH_FAILED = 88, 29, 55, 45


@pytest.fixture(scope="module")
def room() -> Iterator[PolkitRoom]:
    # members of the group libvirt as well: Debian's own rule would let them do everything
    with polkit_room.polkit_room() as found:
        yield found


def known_actions() -> list[str]:
    """Every action that libvirt declares, without org.libvirt.api."""
    return [str(a.get("id")).removeprefix("org.libvirt.api.") for a in ET.parse(ACTIONS).iter("action")]


def test_polkitd_has_taken_the_file(room: PolkitRoom) -> None:
    """It loads it without a complaint; a syntax error would leave the defaults in force."""
    told = room.told()

    assert "Finished loading, compiling and executing" in told
    assert not re.search(r"50-rebalancerd|[Ee]rror compiling|[Ee]rror evaluating", told), told


@pytest.mark.parametrize("account", ["rebalancerd", "rebalancerd-observe"])
def test_every_action_of_libvirt(room: PolkitRoom, account: str) -> None:
    """Reads for both, three rights more for the one that acts, nothing else of all that libvirt knows."""
    actions = known_actions()
    details = {"connect_driver": "QEMU", "domain_name": "web", "domain_uuid": UUID}
    with room.account(account) as subject:
        granted = {a for a in actions if room.allows(subject, f"org.libvirt.api.{a}", **details)}

    assert granted >= READS
    assert granted & ACTS == (ACTS if account == "rebalancerd" else set())
    assert not [a for a in granted - ACTS if not re.search(r"\.(getattr|read|search-[a-z-]+)$", a)]
    assert not [a for a in granted if FORBIDDEN.search(a)]


def test_who_may_connect(room: PolkitRoom) -> None:
    """The observer never gets the socket on which things can be changed; others are as without the file."""
    found = {}
    for name in UIDS:
        with room.account(name) as subject:
            found[name] = [room.allows(subject, f"org.libvirt.unix.{what}") for what in ("monitor", "manage")]

    assert found == {"rebalancerd": [True, True], "rebalancerd-observe": [True, False], "somebody": [True, False]}


def test_the_list_of_vms_is_kept() -> None:
    """With a list of names no other VM may be touched, nor one of another driver, nor one without a name."""
    text = RULES.read_text().replace("var VMS = [/^/];", "var VMS = [/^web-/, /^db-[0-9]+$/];")
    text = text.replace("var MAY_WRITE = true;", "var MAY_WRITE = false;")
    assert text != RULES.read_text()
    migrate, write = "org.libvirt.api.domain.migrate", "org.libvirt.api.domain.write"
    with polkit_room.polkit_room(text) as room, room.account("rebalancerd") as subject:
        asked = {name: room.allows(subject, migrate, connect_driver="QEMU", domain_name=name) for name in
                 ("web-1", "db-12", "db-12x", "my-web-1", "")}  # fmt: skip
        other = room.allows(subject, migrate, connect_driver="LXC", domain_name="web-1")
        nameless = room.allows(subject, migrate, connect_driver="QEMU")
        writes = room.allows(subject, write, connect_driver="QEMU", domain_name="web-1")

    assert asked == {"web-1": True, "db-12": True, "db-12x": False, "my-web-1": False, "": False}
    assert (other, nameless, writes) == (False, False, False)


@pytest.mark.skipif(not Path("/usr/sbin/libvirtd").exists(), reason="libvirtd is not installed")
@pytest.mark.skipif(not Path("/usr/bin/qemu-system-x86_64").exists(), reason="QEMU is not installed")
def test_rebalancerd_on_a_libvirtd_that_asks_polkit() -> None:
    """All that the daemon does passes libvirt's own access control, and what it promises never to do is denied."""
    text = RULES.read_text().replace("var VMS = [/^/];", "var VMS = [/^web/];")
    with polkit_room.polkit_room(text) as room:
        room.start_libvirtd()
        run_in(room, "define")
        actor, other = (run_in(room, str(UIDS["rebalancerd"]), uuid) for uuid in (UUID, OTHER))
        observer = run_in(room, str(UIDS["rebalancerd-observe"]), UUID)
        # sshd would run the key's forced command whatever libvirt asked for; here it takes the place of ssh itself
        ssh = room.directory / "ssh"
        ssh.write_text("#!/bin/sh\nexec virt-ssh-helper -r qemu:///system\n")
        ssh.chmod(0o755)
        tied = run_in(room, str(UIDS["rebalancerd"]), UUID, str(ssh))

    # the domain does not run: whatever asks for a running one gets past the access control and no further
    acts = {"migrate": INVALID, "abort": INVALID, "downtime": INVALID, "bandwidth": "done", "autostart": "done"}
    never = ("start", "destroy", "shutdown", "suspend", "undefine", "define", "rename", "secrets")
    assert actor == {
        "read": "done", "probe": INVALID, "cpu": "done", "compare": "done", **acts, **dict.fromkeys(never, ACCESS_DENIED),
    }  # fmt: skip
    assert {name: other[name] for name in acts} == dict.fromkeys(acts, ACCESS_DENIED), "not in the list of VMs"
    assert observer["read"] == "done"
    assert {name: observer[name] for name in ("probe", "migrate", "abort")} == dict.fromkeys(
        ("probe", "migrate", "abort"), AUTH_FAILED
    ), "it gets no connection for that"
    assert {observer[name] for name in never} == {READ_ONLY}
    assert tied == {"read": "done", "autostart": READ_ONLY, "destroy": READ_ONLY}, (
        "a key may be tied to the read-only socket"
    )


def run_in(room: PolkitRoom, *arguments: str) -> dict[str, object]:
    """The client's findings."""
    command = room.command(sys.executable, "-m", "tests.security.polkit_client", *arguments)
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    told = subprocess.run(command, check=False, cwd=root, env=environment, capture_output=True, text=True, timeout=300)
    assert told.returncode == 0, told.stderr + room.told()
    found: dict[str, object] = json.loads(told.stdout) if told.stdout else {}
    return found
