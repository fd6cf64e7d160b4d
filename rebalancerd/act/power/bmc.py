"""Redfish and IPMI: the daemon's side of a call to a management controller."""

import json
import sys
from typing import Any

from rebalancerd.act.power.address import IPMI_PORT, host_port
from rebalancerd.act.power.child import ChildLateError, run_child
from rebalancerd.act.power.credentials import Credentials, SecretError, credentials, without_secrets
from rebalancerd.act.power.settings import HostPower
from rebalancerd.cluster.power import PowerFault, PowerReading, PowerState
from rebalancerd.ports import PowerError

START_SECONDS = 5.0  # what the child itself may take to begin on a busy machine
CHILD = "rebalancerd.act.power.bmc_child"


def ask_bmc(host: str, power: HostPower, order: str, seconds: float) -> PowerReading:
    """Ask the controller, and give it the order. Raises PowerError; after an order that tells nothing of its effect."""
    answer = _answer(host, power, order, seconds)
    try:
        machine = answer.get("machine")
        return PowerReading(
            PowerState(answer["state"]), str(answer["detail"]), machine=machine if isinstance(machine, str) else None
        )
    except (KeyError, ValueError):
        raise PowerError(host, PowerFault.INCONSISTENT, f"{_where(power)}: no answer about its power") from None


def ask_watts(host: str, power: HostPower, seconds: float) -> float:
    """What the host draws by its controller, in watts, whatever that says. Raises PowerError."""
    answer = _answer(host, power, "watts", seconds)
    watts = answer.get("watts")
    if isinstance(watts, bool) or not isinstance(watts, int | float):
        raise PowerError(host, PowerFault.INCONSISTENT, f"{_where(power)}: {watts!r} are no watts")
    return float(watts)


def _answer(host: str, power: HostPower, order: str, seconds: float) -> dict[str, Any]:
    try:
        secret = credentials(power)
    except SecretError as error:
        raise PowerError(host, PowerFault.SETUP, str(error)) from None
    address: Any = power.address if power.kind == "redfish" else host_port(power.address or "", IPMI_PORT)
    question = {
        "kind": power.kind,
        "order": order,
        "address": address,
        "system": power.system,
        "username": secret.username,
        "password": secret.password,
        "tls_verify": power.tls_verify,
        "ca_file": power.ca_file,
        "seconds": seconds,
    }
    argv = (sys.executable, "-I", "-W", "ignore", "-m", CHILD)
    try:
        ended = run_child(argv, seconds=seconds + START_SECONDS, given=json.dumps(question))
    except ChildLateError as error:
        raise PowerError(host, PowerFault.TIMEOUT, f"{power.kind} at {power.address}: {error}") from None
    except OSError as error:
        raise PowerError(host, PowerFault.SETUP, f"cannot start Python: {error}") from None
    return _told(host, power, ended.code, ended.output, secret)


def _told(host: str, power: HostPower, code: int, output: str, secret: Credentials) -> dict[str, Any]:
    try:
        answer: dict[str, Any] = json.loads(output)
        answer["detail"] = without_secrets(str(answer["detail"]), secret.username, secret.password)
        fault = PowerFault(answer["fault"]) if "fault" in answer else None
    except (ValueError, KeyError, TypeError):
        detail = f"{_where(power)}: the call ended with {code} and no answer"
        raise PowerError(host, PowerFault.INCONSISTENT, detail) from None
    if fault is not None:
        raise PowerError(host, fault, f"{_where(power)}: {answer['detail']}")
    return answer


def _where(power: HostPower) -> str:
    return f"{power.kind} at {power.address}"
