"""Secrets, addresses and command hooks: what stands before any management controller is asked."""

import os
import sys
import time
from pathlib import Path

import pytest

from rebalancerd.act.power import bmc_child
from rebalancerd.act.power.adapters import ConfiguredPower
from rebalancerd.act.power.address import clash, identity
from rebalancerd.act.power.credentials import Credentials, SecretError, read_secret
from rebalancerd.act.power.hands import known_machine, same_machine
from rebalancerd.act.power.settings import HostPower
from rebalancerd.act.power.wake_on_lan import magic_packet
from rebalancerd.cluster.power import PowerFault, PowerState
from rebalancerd.ports import PowerError


def written(path: Path, text: str, mode: int = 0o600) -> str:
    path.write_text(text)
    path.chmod(mode)
    return str(path)


# secrets


def test_a_secret_is_the_one_line_of_its_file(tmp_path: Path) -> None:
    assert read_secret(written(tmp_path / "s", "correct horse\n")) == "correct horse"
    assert read_secret(written(tmp_path / "g", "group\n", 0o640)) == "group"


@pytest.mark.parametrize("mode", [0o604, 0o644, 0o620, 0o602, 0o601])
def test_a_secret_that_others_may_read_or_write_is_refused(tmp_path: Path, mode: int) -> None:
    with pytest.raises(SecretError, match="chmod 600") as told:
        read_secret(written(tmp_path / "s", "hush-hush\n", mode))
    assert "hush-hush" not in str(told.value)


@pytest.mark.parametrize("text", ["", "\n", "two\nlines\n", "bell\a\n", "x" * 5000])
def test_what_is_no_single_line_is_no_secret(tmp_path: Path, text: str) -> None:
    with pytest.raises(SecretError, match="one line"):
        read_secret(written(tmp_path / "s", text))


def test_a_pipe_or_directory_is_no_secret(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe", 0o600)
    for path in (tmp_path / "pipe", tmp_path):
        with pytest.raises(SecretError):
            read_secret(str(path))
    with pytest.raises(SecretError, match="No such file"):
        read_secret(str(tmp_path / "missing"))


def test_a_bare_name_is_a_systemd_credential(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(tmp_path / "bmc", "from systemd\n", 0o400)
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    with pytest.raises(SecretError, match="CREDENTIALS_DIRECTORY"):
        read_secret("bmc")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert read_secret("bmc") == "from systemd"
    with pytest.raises(SecretError, match="neither"):
        read_secret("../bmc")


def test_a_password_shows_in_no_text_of_its_object() -> None:
    assert "hush" not in repr(Credentials("me", "hush"))


def test_a_missing_secret_is_told_as_our_own_fault(tmp_path: Path) -> None:
    power = HostPower(kind="redfish", address="https://bmc", username_file="/nowhere/u", password_file="/nowhere/p")
    with pytest.raises(PowerError, match="/nowhere/u") as told:
        ConfiguredPower({"h": power}, call_deadline_seconds=1).state("h")
    assert told.value.fault is PowerFault.SETUP


# addresses


def redfish(address: str, system: str | None = None) -> HostPower:
    return HostPower(kind="redfish", address=address, system=system)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (redfish("https://bmc1"), redfish("https://BMC1:443/"), True),
        (redfish("https://bmc1"), redfish("https://bmc2"), False),
        (redfish("https://bmc1", "/redfish/v1/Systems/1"), redfish("https://bmc1", "/redfish/v1/Systems/2"), False),
        (redfish("https://bmc1", "/redfish/v1/Systems/1/"), redfish("https://bmc1", "/redfish/v1/Systems/1"), True),
        (redfish("https://bmc1", "/redfish/v1/Systems/1"), redfish("https://bmc1"), True),
        (redfish("https://bmc1"), HostPower(kind="ipmi", address="bmc1"), True),
        (HostPower(kind="ipmi", address="10.0.0.1"), HostPower(kind="ipmi", address="10.0.0.1:623"), True),
        (HostPower(kind="ipmi", address="10.0.0.1:6230"), HostPower(kind="ipmi", address="10.0.0.1:6231"), False),
        (
            HostPower(kind="wake_on_lan", mac="52:54:00:AB:00:01"),
            HostPower(kind="wake_on_lan", mac="52-54-00-ab-00-01"),
            True,
        ),
    ],
)
def test_one_switch_is_one_switch_however_it_is_written(one: HostPower, other: HostPower, same: bool) -> None:
    first, second = identity(one), identity(other)
    assert first is not None and second is not None
    assert clash(first, second) is same


def test_a_magic_packet_is_six_ones_and_sixteen_addresses() -> None:
    packet = magic_packet("52:54:00:12:34:56")
    assert len(packet) == 102
    assert packet == b"\xff" * 6 + bytes.fromhex("525400123456") * 16
    for wrong in ("52:54:00:12:34", "52:54:00:12:34:5g", "ff:ff:ff:ff:ff:ff", "00:00:00:00:00:00", "52:5400:12:34:56"):
        with pytest.raises(ValueError, match="hardware address"):
            magic_packet(wrong)


# command hooks


def hook(tmp_path: Path, body: str) -> tuple[str, ...]:
    path = tmp_path / f"hook{len(list(tmp_path.iterdir()))}"
    path.write_text(f"#!{sys.executable}\n{body}\n")
    path.chmod(0o700)
    return (str(path), "word one", "$HOME;`id`")


def commands(**argv: tuple[str, ...]) -> ConfiguredPower:
    given = {"on_command": ("/bin/true",), "off_command": ("/bin/true",), **argv}
    return ConfiguredPower({"h": HostPower(kind="command", **given)}, call_deadline_seconds=2.0)


@pytest.mark.parametrize(
    ("code", "state"), [(0, PowerState.ON), (1, PowerState.OFF), (2, PowerState.UNKNOWN), (77, PowerState.UNKNOWN)]
)
def test_exit_codes_tell_the_state(tmp_path: Path, code: int, state: PowerState) -> None:
    assert commands(state_command=hook(tmp_path, f"raise SystemExit({code})")).state("h").state is state


def test_a_command_gets_its_words_and_the_host_and_nothing_of_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BMC_PASSWORD", "hush")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", "/secrets")
    body = f"import json, os, sys\njson.dump([sys.argv[1:], dict(os.environ)], open({str(tmp_path / 'told')!r}, 'w'))"
    commands(off_command=hook(tmp_path, body)).graceful_off("h")
    import json

    words, environment = json.loads((tmp_path / "told").read_text())
    assert words == ["word one", "$HOME;`id`"], "no shell has seen them"
    assert environment["REBALANCERD_HOST"] == "h"
    assert not {"BMC_PASSWORD", "CREDENTIALS_DIRECTORY"} & environment.keys()


def test_a_command_that_fails_hangs_or_is_missing_is_told_apart(tmp_path: Path) -> None:
    failing = commands(on_command=hook(tmp_path, "import sys\nsys.exit('no such outlet')"))
    with pytest.raises(PowerError, match="ended with 1: no such outlet") as told:
        failing.on("h")
    assert told.value.fault is PowerFault.REFUSED
    missing = commands(state_command=("/nonexistent/hook",))
    with pytest.raises(PowerError, match="cannot be started") as told:
        missing.state("h")
    assert told.value.fault is PowerFault.SETUP


def test_a_command_that_hangs_is_killed_with_what_it_started(tmp_path: Path) -> None:
    child = f"import subprocess, time\np = subprocess.Popen(['sleep', '60'])\nopen({str(tmp_path / 'pid')!r}, 'w').write(str(p.pid))\ntime.sleep(60)"
    slow = commands(state_command=hook(tmp_path, child))
    with pytest.raises(PowerError, match="within 2 s") as told:
        slow.state("h")
    assert told.value.fault is PowerFault.TIMEOUT
    status = Path(f"/proc/{(tmp_path / 'pid').read_text()}/stat")
    deadline = time.monotonic() + 10  # a killed process dies when it is its turn
    while alive(status) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not alive(status)


def alive(status: Path) -> bool:
    try:
        return status.read_text().split()[2] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_wake_on_lan_says_that_it_cannot_tell_and_needs_a_command_to_power_off() -> None:
    power = ConfiguredPower({"h": HostPower(kind="wake_on_lan", mac="52:54:00:12:34:56")}, call_deadline_seconds=1)
    reading = power.state("h")
    assert reading.state is PowerState.UNKNOWN
    assert not reading.tells
    with pytest.raises(PowerError, match="shuts it down"):
        power.graceful_off("h")
    with pytest.raises(PowerError, match="no way to control"):
        power.on("stranger")


class Session:
    """An IPMI session whose answers are given."""

    def __init__(self, *data: int, error: str | None = None) -> None:
        self.answer = {"data": list(data), **({"error": error} if error else {})}
        self.asked: dict[str, object] = {}

    def raw_command(self, **asked: object) -> dict[str, object]:
        self.asked = asked
        return self.answer


def dcmi(watts: int, active: bool = True) -> tuple[int, ...]:
    """A power reading as DCMI 1.5 has it: group, watts now, least, most, mean, time, period, state."""
    low, high = watts & 0xFF, watts >> 8
    return (0xDC, low, high, *(0,) * 14, 0x40 if active else 0)


def test_a_dcmi_reading_is_taken_by_its_bytes() -> None:
    session = Session(*dcmi(435))
    assert bmc_child._dcmi_watts(session)["watts"] == 435.0
    assert session.asked == {"netfn": 0x2C, "command": 2, "data": [0xDC, 1, 0, 0]}


@pytest.mark.parametrize(
    ("session", "fault"),
    [
        (Session(*dcmi(435, active=False)), PowerFault.REFUSED),
        (Session(*dcmi(435)[:9]), PowerFault.INCONSISTENT),
        (Session(), PowerFault.INCONSISTENT),
        (Session(error="Invalid command"), PowerFault.REFUSED),
        (Session(error="timeout"), PowerFault.TIMEOUT),
    ],
)
def test_what_is_no_dcmi_reading_is_told_apart(session: Session, fault: PowerFault) -> None:
    with pytest.raises(bmc_child.Unanswered) as told:
        bmc_child._dcmi_watts(session)
    assert told.value.fault is fault


def test_a_machine_is_the_same_in_both_orders_of_its_uuid() -> None:
    ours = "00112233-4455-6677-8899-aabbccddeeff"
    assert same_machine(str(known_machine(ours.upper())), ours)
    assert same_machine(str(known_machine("33221100-5544-7766-8899-aabbccddeeff")), ours)
    assert not same_machine(str(known_machine("33221100-5544-7766-8899-aabbccddeefe")), ours)
    assert not same_machine("whatever", None)
    unset = ("", None, "0" * 32, "FFFFFFFF-FFFF-FFFF-FFFF-FFFFFFFFFFFF", "03000200-0400-0500-0006-000700080009")
    assert [known_machine(told) for told in unset] == [None] * 5
