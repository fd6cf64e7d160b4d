"""Redfish, IPMI and Wake-on-LAN as they are really spoken: against sushy-tools' emulator, ipmi_sim and a network namespace."""

import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rebalancerd.act.power.adapters import ConfiguredPower
from rebalancerd.act.power.bmc import ask_watts
from rebalancerd.act.power.settings import HostPower
from rebalancerd.act.power.wake_on_lan import magic_packet
from rebalancerd.cluster.power import PowerFault, PowerState
from rebalancerd.ports import PowerError
from tests.e2e.power_world import (
    CHASSIS,
    PASSWORD,
    SYSTEM,
    controlled,
    free_port,
    in_front,
    ipmi_simulator,
    liar,
    redfish_emulator,
    silent,
    wait_for,
)

needs_ipmi_sim = pytest.mark.skipif(shutil.which("ipmi_sim") is None, reason="needs the package openipmi")
needs_namespaces = pytest.mark.skipif(os.geteuid() != 0, reason="needs root for network namespaces")


def one(power: HostPower, *, seconds: float = 20.0) -> ConfiguredPower:
    return ConfiguredPower({"h": power}, call_deadline_seconds=seconds)


def fault_of(power: ConfiguredPower) -> PowerError:
    with pytest.raises(PowerError) as told:
        power.state("h")
    assert PASSWORD not in str(told.value)
    return told.value


# Redfish


@pytest.mark.parametrize("system", [None, SYSTEM])
def test_redfish_shuts_down_and_powers_on(tmp_path: Path, system: str | None) -> None:
    with redfish_emulator(tmp_path) as url:
        power = one(controlled(tmp_path, "redfish", url, system=system))
        assert power.state("h").state is PowerState.ON
        power.graceful_off("h")
        wait_for(lambda: power.state("h").state is PowerState.OFF, 20)
        power.graceful_off("h")  # again is nothing
        assert power.state("h").state is PowerState.OFF
        power.on("h")
        wait_for(lambda: power.state("h").state is PowerState.ON, 20)


def test_redfish_checks_certificates_unless_told_not_to(tmp_path: Path) -> None:
    with redfish_emulator(tmp_path, tls=True) as url:
        strange = fault_of(one(controlled(tmp_path, "redfish", url)))
        assert strange.fault is PowerFault.CERTIFICATE
        trusted = controlled(tmp_path, "redfish", url, ca_file=str(tmp_path / "cert.pem"))
        assert one(trusted).state("h").state is PowerState.ON
        unchecked = controlled(tmp_path, "redfish", url, tls_verify=False)
        assert one(unchecked).state("h").state is PowerState.ON


def test_redfish_says_what_is_wrong(tmp_path: Path) -> None:
    with redfish_emulator(tmp_path) as url:
        wrong = fault_of(one(controlled(tmp_path, "redfish", url, password="incorrect-horse")))
        assert wrong.fault is PowerFault.CREDENTIALS
        assert "incorrect-horse" not in str(wrong)
        nobody = fault_of(one(controlled(tmp_path, "redfish", url, system="/redfish/v1/Systems/none")))
        assert nobody.fault is PowerFault.REFUSED
        with liar(url, state=None) as front:
            assert fault_of(one(controlled(tmp_path, "redfish", front))).fault is PowerFault.INCONSISTENT
    gone = fault_of(one(controlled(tmp_path, "redfish", url)))
    assert gone.fault is PowerFault.UNREACHABLE


def test_a_redfish_controller_that_never_answers_costs_its_deadline_and_no_more(tmp_path: Path) -> None:
    with silent(socket.SOCK_STREAM) as port:
        begun = time.monotonic()
        late = fault_of(one(controlled(tmp_path, "redfish", f"http://127.0.0.1:{port}"), seconds=1.0))
    assert late.fault is PowerFault.TIMEOUT
    assert time.monotonic() - begun < 10


def metrics_of(place: str) -> dict[str, object]:
    return {"EnvironmentMetrics": {"@odata.id": f"{place}/EnvironmentMetrics"}}


@pytest.mark.parametrize("where", ["system", "chassis metrics", "chassis power"])
def test_redfish_tells_what_the_host_draws(tmp_path: Path, where: str) -> None:
    """The emulator itself has no such resource: it gets them as the standard has them (DSP2046)."""
    reading: dict[str, dict[str, object]] = {
        "system": {
            SYSTEM: metrics_of(SYSTEM),
            f"{SYSTEM}/EnvironmentMetrics": {"PowerWatts": {"Reading": 187.5}},
        },
        "chassis metrics": {
            CHASSIS: metrics_of(CHASSIS),
            f"{CHASSIS}/EnvironmentMetrics": {"PowerWatts": {"Reading": 187.5}},
        },
        "chassis power": {
            CHASSIS: {"Power": {"@odata.id": f"{CHASSIS}/Power"}},
            f"{CHASSIS}/Power": {"PowerControl": [{"PowerConsumedWatts": 187.5}, {"PowerConsumedWatts": 60}]},
        },
    }[where]
    alone = {
        "Id": "one",
        "Name": "one",
        "ChassisType": "RackMount",
        "Links": {"ComputerSystems": [{"@odata.id": SYSTEM}]},
    }
    here = {"Links": {"Chassis": [{"@odata.id": CHASSIS}], "ManagedBy": []}}
    reading[CHASSIS] = {**alone, **reading.get(CHASSIS, {})}
    reading[SYSTEM] = {**here, **reading.get(SYSTEM, {})}
    with redfish_emulator(tmp_path) as url, in_front(url, reading) as told:
        assert ask_watts("h", controlled(tmp_path, "redfish", told), 20.0) == 187.5
        # a chassis with two systems does not tell them apart
        reading[CHASSIS] = {
            **reading[CHASSIS],
            "Links": {"ComputerSystems": [{"@odata.id": SYSTEM}, {"@odata.id": SYSTEM}]},
        }
        if where != "system":
            with pytest.raises(PowerError, match="no reading of what the host draws"):
                ask_watts("h", controlled(tmp_path, "redfish", told), 20.0)


def test_a_redfish_controller_without_such_readings_says_so(tmp_path: Path) -> None:
    with redfish_emulator(tmp_path) as url:
        with pytest.raises(PowerError, match="no reading of what the host draws") as told:
            ask_watts("h", controlled(tmp_path, "redfish", url), 20.0)
        assert told.value.fault is PowerFault.REFUSED
        with pytest.raises(PowerError) as wrong:
            ask_watts("h", controlled(tmp_path, "redfish", url, password="incorrect-horse"), 20.0)
        assert wrong.value.fault is PowerFault.CREDENTIALS


# IPMI


@needs_ipmi_sim
def test_ipmi_without_dcmi_says_so(tmp_path: Path) -> None:
    with ipmi_simulator(tmp_path) as (address, _), pytest.raises(PowerError) as told:
        ask_watts("h", controlled(tmp_path, "ipmi", address), 20.0)
    assert told.value.fault is PowerFault.REFUSED


@needs_ipmi_sim
def test_ipmi_shuts_down_and_powers_on(tmp_path: Path) -> None:
    with ipmi_simulator(tmp_path) as (address, chassis):
        power = one(controlled(tmp_path, "ipmi", address))
        assert power.state("h").state is PowerState.ON
        power.graceful_off("h")
        assert chassis.read_text().strip() == "0", "shut down in good order, not by force"
        assert power.state("h").state is PowerState.OFF
        power.on("h")
        assert power.state("h").state is PowerState.ON


@needs_ipmi_sim
def test_ipmi_says_what_is_wrong(tmp_path: Path) -> None:
    with ipmi_simulator(tmp_path) as (address, chassis):
        wrong = fault_of(one(controlled(tmp_path, "ipmi", address, password="incorrect-horse")))
        assert wrong.fault is PowerFault.CREDENTIALS
        with pytest.raises(PowerError):
            one(controlled(tmp_path, "ipmi", address, password="incorrect-horse")).graceful_off("h")
        assert chassis.read_text().strip() == "1", "nothing was done with a wrong password"


def test_an_ipmi_controller_that_never_answers_costs_its_deadline_and_no_more(tmp_path: Path) -> None:
    with silent(socket.SOCK_DGRAM) as port:
        begun = time.monotonic()
        late = fault_of(one(controlled(tmp_path, "ipmi", f"127.0.0.1:{port}"), seconds=1.0))
    assert late.fault is PowerFault.TIMEOUT
    assert time.monotonic() - begun < 10
    gone = fault_of(one(controlled(tmp_path, "ipmi", f"127.0.0.1:{free_port(socket.SOCK_DGRAM)}"), seconds=1.0))
    assert gone.fault in (PowerFault.TIMEOUT, PowerFault.UNREACHABLE)


# Wake-on-LAN

MAC = "52:54:00:ab:cd:ef"
LISTENER = """
import socket, sys
raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0800))
raw.bind(("wol1", 0)); raw.settimeout(20); print("listening", flush=True)
while True:
    frame = raw.recv(2048)
    if frame[23] == 17 and int.from_bytes(frame[36:38], "big") == 9:
        print(frame[:6].hex(), frame[42:].hex(), flush=True)
        break
"""
SENDER = """
import sys
from rebalancerd.act.power.adapters import ConfiguredPower
from rebalancerd.act.power.bmc import ask_watts
from rebalancerd.act.power.settings import HostPower
power = HostPower(kind="wake_on_lan", mac=sys.argv[1], broadcast=sys.argv[2], off_command=("/bin/true",))
ConfiguredPower({"h": power}, call_deadline_seconds=5).on("h")
"""


@needs_namespaces
@pytest.mark.parametrize("broadcast", ["10.99.7.255", "255.255.255.255:9"])
def test_a_magic_packet_arrives_at_every_card_of_the_network(broadcast: str) -> None:
    """Captured as a raw Ethernet frame on the other end of a wire between two network namespaces."""
    near, far = f"rb-wol-a-{os.getpid()}", f"rb-wol-b-{os.getpid()}"
    ip("netns", "add", near)
    ip("netns", "add", far)
    try:
        ip("-n", near, "link", "add", "wol0", "type", "veth", "peer", "name", "wol1", "netns", far)
        ip("-n", near, "addr", "add", "10.99.7.1/24", "dev", "wol0")
        ip("-n", near, "link", "set", "wol0", "up")
        ip("-n", far, "link", "set", "wol1", "up")
        ip("-n", near, "route", "add", "default", "dev", "wol0")
        listen = ["ip", "netns", "exec", far, sys.executable, "-c", LISTENER]
        with subprocess.Popen(listen, stdout=subprocess.PIPE, text=True) as listener:
            assert listener.stdout is not None
            assert listener.stdout.readline() == "listening\n"
            send = ["ip", "netns", "exec", near, sys.executable, "-c", SENDER, MAC, broadcast]
            subprocess.run(send, check=True, timeout=30)
            target, payload = listener.stdout.readline().split()
        assert target == "ff" * 6
        assert bytes.fromhex(payload) == magic_packet(MAC)
    finally:
        ip("netns", "del", near)
        ip("netns", "del", far)


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


@needs_namespaces
def test_wake_on_lan_says_when_there_is_no_way_to_the_network() -> None:
    """In a namespace without any interface nothing can be sent, and that is told."""
    near = f"rb-wol-c-{os.getpid()}"
    ip("netns", "add", near)
    try:
        send = ["ip", "netns", "exec", near, sys.executable, "-c", SENDER, MAC, "10.99.7.255"]
        ended = subprocess.run(send, capture_output=True, text=True, timeout=30, check=False)
    finally:
        ip("netns", "del", near)
    assert ended.returncode != 0
    assert "Wake-on-LAN to 10.99.7.255" in ended.stderr
