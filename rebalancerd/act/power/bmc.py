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
    return _reading(host, power, ended.code, ended.output, secret)


def _reading(host: str, power: HostPower, code: int, output: str, secret: Credentials) -> PowerReading:
    where = f"{power.kind} at {power.address}"
    try:
        answer = json.loads(output)
        detail = without_secrets(str(answer["detail"]), secret.username, secret.password)
        if "fault" in answer:
            raise PowerError(host, PowerFault(answer["fault"]), f"{where}: {detail}")
        return PowerReading(PowerState(answer["state"]), detail)
    except (ValueError, KeyError, TypeError):
        raise PowerError(host, PowerFault.INCONSISTENT, f"{where}: the call ended with {code} and no answer") from None
