"""One question or order to one management controller, asked in a process of its own: ``python -m`` this module.

The protocol libraries keep sockets, sessions and retries of their own; in a child that is killed at the deadline none of
them can hang, leak into or outlive a call. Standard input holds the question as JSON, standard output takes the answer;
secrets pass through no argument, no environment and no log.
"""

import json
import logging
import sys
from typing import Any

from rebalancerd.act.power.credentials import without_secrets
from rebalancerd.cluster.power import PowerFault, PowerState

ORDERS = ("state", "on", "graceful_off", "watts")
NO_WATTS = "it gives no reading of what the host draws"
IPMI_SOFT_OFF, IPMI_ON = 5, 1
MOST_DETAIL = 300


class Unanswered(Exception):  # noqa: N818 - it is an answer of its own kind
    """The controller gave no usable answer."""

    def __init__(self, fault: PowerFault, detail: str) -> None:
        super().__init__(detail)
        self.fault = fault


def main() -> int:
    """Answer the question on standard input."""
    logging.disable(logging.CRITICAL)  # the libraries log requests
    asked: dict[str, Any] = json.load(sys.stdin)

    def told(detail: str) -> str:
        return without_secrets(detail, asked["username"], asked["password"])[:MOST_DETAIL]

    try:
        work = {"redfish": redfish, "ipmi": ipmi}[asked["kind"]]
        answer = work(asked)
        answer["detail"] = told(answer["detail"])
    except Unanswered as error:
        answer = {"fault": error.fault.value, "detail": told(str(error))}
    except ImportError as error:
        detail = f"{error.name} is not installed: install rebalancerd[power]"
        answer = {"fault": PowerFault.SETUP.value, "detail": detail}
    json.dump(answer, sys.stdout)
    return 0


def redfish(asked: dict[str, Any]) -> dict[str, Any]:
    """Ask or order by Redfish; to ``watts`` the answer is a number. Raises Unanswered."""
    import sushy
    from sushy import exceptions

    try:
        return _redfish(asked, sushy)
    except exceptions.AccessError as error:
        raise Unanswered(PowerFault.CREDENTIALS, f"it does not accept the name or password ({error})") from None
    except exceptions.ResourceNotFoundError as error:
        raise Unanswered(PowerFault.REFUSED, f"it has no such thing: {error}") from None
    except exceptions.ConnectionError as error:
        raise Unanswered(_connection_fault(str(error)), str(error)) from None
    except (exceptions.HTTPError, exceptions.MissingActionError, exceptions.InvalidParameterValueError) as error:
        raise Unanswered(PowerFault.REFUSED, f"it refused: {error}") from None
    except (exceptions.SushyError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise Unanswered(PowerFault.INCONSISTENT, f"its answer makes no sense: {error}") from None


def _connection_fault(text: str) -> PowerFault:
    low = text.lower()
    if "certificate" in low or "ssl" in low:
        return PowerFault.CERTIFICATE
    return PowerFault.TIMEOUT if "timed out" in low else PowerFault.UNREACHABLE


def _redfish(asked: dict[str, Any], sushy: Any) -> dict[str, Any]:
    verify = (asked["ca_file"] or True) if asked["tls_verify"] else False
    connector = sushy.connector.Connector(
        asked["address"],
        verify=verify,
        server_side_retries=1,
        server_side_retries_delay=1,
        default_request_timeout=asked["seconds"],
    )
    auth = sushy.auth.BasicAuth(username=asked["username"], password=asked["password"])
    root = sushy.Sushy(asked["address"], auth=auth, connector=connector)
    system = root.get_system(asked["system"]) if asked["system"] else _only_system(root)
    if asked["order"] == "watts":
        return _redfish_watts(system, root._conn)  # noqa: SLF001 - sushy reads no such resource by itself
    said = system.power_state
    state = {sushy.PowerState.ON: PowerState.ON, sushy.PowerState.OFF: PowerState.OFF}.get(said)
    if state is None and said not in (sushy.PowerState.POWERING_ON, sushy.PowerState.POWERING_OFF):
        raise Unanswered(PowerFault.INCONSISTENT, f"it says of the power: {said!r}")
    detail = f"Redfish PowerState {said.value}"
    if asked["order"] == "on" and state is not PowerState.ON:
        system.reset_system(sushy.ResetType.ON)
    elif asked["order"] == "graceful_off" and state is not PowerState.OFF:
        system.reset_system(sushy.ResetType.GRACEFUL_SHUTDOWN)
    return {"state": (state or PowerState.UNKNOWN).value, "detail": detail, "machine": system.uuid}


def _redfish_watts(system: Any, connector: Any) -> dict[str, Any]:
    """What the system draws: by its own EnvironmentMetrics, else by those or the Power of the chassis it has to itself."""

    def linked(tree: Any, name: str) -> Any:
        link = (tree.get(name) or {}).get("@odata.id")
        return connector.get(link).json() if link else {}

    places = [("system", system.json)]
    if "EnvironmentMetrics" not in system.json:
        places += [("chassis", chassis.json) for chassis in system.chassis if len(chassis.systems) == 1]
    for place, tree in places:
        watts = (linked(tree, "EnvironmentMetrics").get("PowerWatts") or {}).get("Reading")
        if watts is None and place == "chassis":
            controls = linked(tree, "Power").get("PowerControl") or [{}]
            watts = controls[0].get("PowerConsumedWatts")
        if watts is not None:
            return {"watts": float(watts), "detail": f"Redfish power of the {place}"}
    raise Unanswered(PowerFault.REFUSED, NO_WATTS)


def _only_system(root: Any) -> Any:
    members = root.get_system_collection().get_members()
    if len(members) != 1:
        raise Unanswered(PowerFault.REFUSED, f"it has {len(members)} systems: name one with `system`")
    return members[0]


def ipmi(asked: dict[str, Any]) -> dict[str, Any]:
    """Ask or order by IPMI 2.0 over LAN; to ``watts`` the answer is a number. Raises Unanswered."""
    from pyghmi.exceptions import PyghmiException
    from pyghmi.ipmi.command import Command

    host, port = asked["address"]
    try:
        session = Command(bmc=host, userid=asked["username"], password=asked["password"], port=port, keepalive=False)
        if asked["order"] == "watts":
            return _dcmi_watts(session)
        said = _ipmi(session, 1)  # Get Chassis Status
        if not said:
            raise Unanswered(PowerFault.INCONSISTENT, "its chassis status is empty")
        state = PowerState.ON if said[0] & 1 else PowerState.OFF
        machine = _guid(session)
        order = {"on": IPMI_ON, "graceful_off": IPMI_SOFT_OFF}.get(asked["order"])
        if order is not None and state is not (PowerState.ON if order == IPMI_ON else PowerState.OFF):
            _ipmi(session, 2, order)  # Chassis Control
    except PyghmiException as error:
        raise Unanswered(_ipmi_fault(str(error)), f"IPMI: {error}") from None
    except OSError as error:
        raise Unanswered(PowerFault.UNREACHABLE, f"IPMI: {error}") from None
    return {"state": state.value, "detail": f"IPMI chassis power is {state}", "machine": machine}


def _guid(session: Any) -> str | None:
    """Get System GUID (IPMI 2.0, 22.14); optional, so that a controller without one is as good as any."""
    data = session.raw_command(netfn=6, command=0x37, data=[]).get("data")
    return bytes(data).hex() if data is not None and len(data) == 16 else None


def _dcmi_watts(session: Any) -> dict[str, Any]:
    """Get Power Reading (DCMI 1.5, 6.6.1): mode system power statistics; bytes 2 and 3 are the present watts."""
    said = _ipmi(session, 2, 0xDC, 1, 0, 0, netfn=0x2C)
    if not said or len(said) < 18 or said[0] != 0xDC:
        raise Unanswered(PowerFault.INCONSISTENT, "its power reading is cut short")
    if not said[17] & 0x40:  # reading state: no measurement is active
        raise Unanswered(PowerFault.REFUSED, NO_WATTS)
    return {"watts": float(said[1] | said[2] << 8), "detail": "IPMI DCMI power reading"}


def _ipmi(session: Any, command: int, *data: int, netfn: int = 0) -> Any:
    answer = session.raw_command(netfn=netfn, command=command, data=list(data))
    if answer.get("error"):
        fault = PowerFault.TIMEOUT if "timeout" in str(answer["error"]) else PowerFault.REFUSED
        raise Unanswered(fault, f"IPMI: it refused: {answer['error']}")
    return answer.get("data")


def _ipmi_fault(text: str) -> PowerFault:
    low = text.lower()
    if "timeout" in low or "no longer connected" in low or low == "none":  # pyghmi has no words for a silent login
        return PowerFault.TIMEOUT
    if any(word in low for word in ("password", "unauthorized", "insufficient priv", "user", "name")):
        return PowerFault.CREDENTIALS
    return PowerFault.REFUSED


if __name__ == "__main__":
    raise SystemExit(main())
