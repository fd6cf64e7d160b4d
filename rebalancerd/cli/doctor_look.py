"""What the doctor looks at: every host through the ports that the mode builds, a TCP connection, and the host's agent."""

import socket
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar
from urllib.parse import urlsplit

from rebalancerd.cli.doctor_checks import NOT_ASKED, AgentLook, Answer, HostLook
from rebalancerd.cluster.sample import CpuFit
from rebalancerd.cluster.vm import VmFacts
from rebalancerd.observe.listening import TlsFiles
from rebalancerd.observe.settings import HostSettings
from rebalancerd.ports import HostError, HostRefusedError, HypervisorProbe, HypervisorRead, HypervisorWrite

T = TypeVar("T")
FIRST_MIGRATION_PORT = 49152
PORT_PATIENCE_SECONDS = 3.0
AGENT_PATIENCE_SECONDS = 3.0
MOST_COMPARISONS = 200


def look_at(
    hosts: Sequence[HostSettings],
    read: HypervisorRead,
    probe: HypervisorProbe | None,
    write: HypervisorWrite | None,
    tls: TlsFiles | None = None,
) -> tuple[HostLook, ...]:
    """Every host, side by side; one that hangs costs its own deadline. ``tls``: what agents are shown."""
    with ThreadPoolExecutor(max_workers=max(1, min(32, len(hosts)))) as pool:
        return tuple(pool.map(lambda host: _look(host, read, probe, write, tls), hosts))


def compare_cpus(looks: Sequence[HostLook], probe: HypervisorProbe | None) -> Mapping[tuple[str, str], Answer]:
    """(VM UUID, destination) to whether its CPU fits there, for every kind of CPU once. Empty without a probe."""
    fits: dict[tuple[str, str], Answer] = {}
    asked: dict[tuple[str, str], Answer] = {}
    for look in looks:
        for vm in look.vms if probe is not None else ():
            for other in looks:
                if other.name == look.name or other.sample is None or probe is None:
                    continue
                key = (vm.cpu_digest or vm.uuid, other.name)
                if key not in asked and len(asked) < MOST_COMPARISONS:
                    asked[key] = _fit(probe, vm, look.name, other.name)
                if key in asked:
                    fits[vm.uuid, other.name] = asked[key]
    return fits


def _look(
    host: HostSettings,
    read: HypervisorRead,
    probe: HypervisorProbe | None,
    write: HypervisorWrite | None,
    tls: TlsFiles | None,
) -> HostLook:
    port, agent = _port(host), _agent(host, tls)
    try:
        sample = read.sample(host.name)
    except HostError as error:
        refused = isinstance(error, HostRefusedError)
        return HostLook(settings=host, error=_without_name(error), refused=refused, port=port, agent=agent)
    vms = tuple(d.facts for d in sample.domains if d.facts is not None)
    return HostLook(
        settings=host,
        sample=sample,
        inventory=_or_none(lambda: read.inventory(host.name)),
        rights=_rights(host, probe, write, vms),
        port=port,
        agent=agent,
    )


def _rights(
    host: HostSettings, probe: HypervisorProbe | None, write: HypervisorWrite | None, vms: Sequence[VmFacts]
) -> Answer:
    """Whether the read-write connection that the mode needs is granted."""
    if write is not None:
        try:
            granted = write.may_set_autostart(host.name)
        except HostError as error:
            return Answer(False, _without_name(error))
        return Answer(granted, "read-write, autostart included" if granted else "may not set autostart: no VM is moved")
    if probe is None:
        return Answer(None, 'probe is not "direct": no read-write connection is used')
    if not vms:
        return Answer(None, "no VM here to try it on")
    try:
        probe.cpu_fit(vms[0].uuid, host.name, host.name)
    except HostError as error:
        return Answer(False, _without_name(error))
    return Answer(True, "read-write, for the probe")


def _fit(probe: HypervisorProbe, vm: VmFacts, source: str, destination: str) -> Answer:
    try:
        fit, detail = probe.cpu_fit(vm.uuid, source, destination)
    except HostError as error:
        return Answer(None, str(error))
    return Answer({CpuFit.COMPATIBLE: True, CpuFit.INCOMPATIBLE: False}.get(fit), detail)


def _port(host: HostSettings) -> Answer:
    """Whether TCP to the migration port gets an answer from here: a refusal is one, for nothing listens between moves."""
    if host.migration_uri is None:
        return Answer(None, "no migration_uri is set")
    try:
        parts = urlsplit(host.migration_uri)
        address, port = parts.hostname, parts.port or FIRST_MIGRATION_PORT
    except ValueError as error:
        return Answer(None, f"migration_uri: {error}")
    if address is None:
        return Answer(None, "migration_uri names no address")
    try:
        socket.create_connection((address, port), PORT_PATIENCE_SECONDS).close()
    except ConnectionRefusedError:
        return Answer(True, f"{address} port {port} answers from here (closed until a migration opens it)")
    except OSError as error:
        return Answer(False, f"{address} port {port} does not answer from here: {error.strerror or error}")
    return Answer(True, f"{address} port {port} is open from here")


def _agent(host: HostSettings, tls: TlsFiles | None) -> AgentLook | None:
    if host.agent_url is None:
        return None
    import httpx

    from rebalancerd.observe.agent import PREFIX
    from rebalancerd.observe.agent_client import parse_figures

    parts = urlsplit(host.agent_url)
    url = host.agent_url if parts.path not in ("", "/") else f"{parts.scheme}://{parts.netloc}/metrics"
    try:
        asked = time.time()
        verify = True if tls is None else tls.for_client()
        answer = httpx.get(url, timeout=AGENT_PATIENCE_SECONDS, trust_env=False, verify=verify)
        here = (asked + time.time()) / 2
        answer.raise_for_status()
        figures = parse_figures(answer.text)
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
        return AgentLook(error=f"{url}: {error or type(error).__name__}")
    there = figures.get((f"{PREFIX}_clock_seconds", ""))
    return AgentLook(
        skew_seconds=there - here if there is not None else None,
        paths={label: value > 0 for (name, label), value in figures.items() if name == f"{PREFIX}_path_exists"},
        names={label: value > 0 for (name, label), value in figures.items() if name == f"{PREFIX}_name_resolves"},
    )


def _or_none(question: Callable[[], T]) -> T | None:
    try:
        return question()
    except HostError:
        return None


def _without_name(error: HostError) -> str:
    return str(error).removeprefix(f"{error.host}: ")


__all__ = ["NOT_ASKED", "compare_cpus", "look_at"]
