"""What will stop a migration, host by host: a pure comparison of what was looked at (doctor_look).

``fail`` stops every migration of or to the host, ``warn`` stops some or makes them doubtful, ``not checked`` says that
the question could not be asked and what would be needed to ask it.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from urllib.parse import urlsplit

from rebalancerd.cluster.policy import Mode
from rebalancerd.cluster.sample import HostInventory, HostSample
from rebalancerd.cluster.storage import covered
from rebalancerd.cluster.vm import VmFacts
from rebalancerd.observe.settings import HostSettings
from rebalancerd.plan.rules_fit import HOST_CPU_MODES

CLOCK_WARN_SECONDS, CLOCK_FAIL_SECONDS = 1.0, 30.0
SHOWN = 3
REMOTE_SCHEMES = ("qemu+ssh", "qemu+tls", "qemu+tcp")


class Result(StrEnum):
    """What a check came to."""

    OK = "ok"
    FAIL = "fail"
    WARN = "warn"
    NOT_CHECKED = "not checked"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One check of one host: result, what was seen, and how to mend it."""

    check: str
    host: str
    result: Result
    detail: str
    mend: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """Yes, no or unknown, and what was seen."""

    yes: bool | None
    detail: str


NOT_ASKED = Answer(None, "not asked")


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentLook:
    """What a host's agent said: seconds its clock is ahead, which paths exist there, which names it resolves."""

    error: str | None = None
    skew_seconds: float | None = None
    paths: Mapping[str, bool] = field(default_factory=dict)
    names: Mapping[str, bool] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class HostLook:
    """What was seen of one host. ``refused``: it answered, but would not let us. ``agent`` None: none is configured."""

    settings: HostSettings
    sample: HostSample | None = None
    inventory: HostInventory | None = None
    error: str | None = None
    refused: bool = False
    rights: Answer = NOT_ASKED
    port: Answer = NOT_ASKED
    agent: AgentLook | None = None

    @property
    def name(self) -> str:
        """The host's name."""
        return self.settings.name

    @property
    def vms(self) -> tuple[VmFacts, ...]:
        """Facts of the VMs that live here, as far as their XML could be read."""
        return tuple(d.facts for d in self.sample.domains if d.facts is not None) if self.sample is not None else ()


# why that VM of that host cannot go to that other one, None if it can
Reason = Callable[[VmFacts, HostLook, HostLook], str | None]


def diagnose(looks: Sequence[HostLook], mode: Mode, fits: Mapping[tuple[str, str], Answer]) -> tuple[Finding, ...]:
    """Every finding, host by host. ``fits``: (VM UUID, destination) to whether its CPU fits there."""
    found: list[Finding] = []
    for look in looks:
        found.append(_reachable(look))
        if look.sample is None:
            continue
        others = [o for o in looks if o.name != look.name and o.sample is not None]
        found += [_rights(look, mode), _uuid(look, looks), _peer_uri(look), _migration_uri(look), _port(look)]
        found += [_versions(look, others), _cpu(look, others, fits), _storage(look, others), _networks(look, others)]
        found += [_secrets(look, others), _figures(look)]
        found += _by_agent(look)
    return tuple(found)


def _finding(check: str, look: HostLook, result: Result, detail: str, mend: str = "") -> Finding:
    return Finding(check=check, host=look.name, result=result, detail=detail, mend=mend)


def _reachable(look: HostLook) -> Finding:
    if look.sample is not None:
        count = len(look.sample.domains)
        return _finding("reachable", look, Result.OK, f"answers on {look.settings.uri}, {count} running VMs")
    mend = "give the daemon's user the right to connect (polkit, unix_sock_group, TLS or ssh key)"
    if not look.refused:
        mend = f"see whether libvirtd runs there and `virsh -r -c {look.settings.uri} list` works as the daemon's user"
    return _finding("reachable", look, Result.FAIL, look.error or "no answer", mend)


def _rights(look: HostLook, mode: Mode) -> Finding:
    if mode is Mode.OBSERVE:
        return _finding("rights", look, Result.OK, "read-only, which is all that mode observe needs")
    if look.rights.yes is None:
        mend = "" if mode.may_act else "checked in mode guarded and auto; recommend needs read-write for its probe only"
        return _finding("rights", look, Result.NOT_CHECKED, look.rights.detail, mend)
    if look.rights.yes:
        return _finding("rights", look, Result.OK, look.rights.detail)
    mend = "allow the daemon's user read-write connections there (group libvirt, or a polkit rule), autostart changes included"
    return _finding("rights", look, Result.FAIL if mode.may_act else Result.WARN, look.rights.detail, mend)


def _uuid(look: HostLook, looks: Iterable[HostLook]) -> Finding:
    uuid = _uuid_of(look)
    if uuid is None:
        return _finding("host uuid", look, Result.NOT_CHECKED, "libvirt does not tell its host UUID")
    same = [o.name for o in looks if o.name != look.name and _uuid_of(o) == uuid]
    if same:
        mend = "set a different host_uuid in libvirtd.conf on one of them (`uuidgen`), restart libvirtd"
        return _finding("host uuid", look, Result.FAIL, f"the same as {_some(same)}: {uuid}", mend)
    return _finding("host uuid", look, Result.OK, uuid)


def _uuid_of(look: HostLook) -> str | None:
    return look.sample.facts.uuid if look.sample is not None else None


def _peer_uri(look: HostLook) -> Finding:
    settings = look.settings
    given = settings.peer_uri
    if given is not None:
        scheme = urlsplit(given).scheme
        if scheme in REMOTE_SCHEMES:
            return _finding("peer uri", look, Result.OK, given)
        mend = "peer_uri is how the *source host* reaches this libvirtd, such as qemu+tls://NAME/system"
        return _finding("peer uri", look, Result.FAIL, f"{given} is not remote: a source host would ask itself", mend)
    if urlsplit(settings.write_uri).scheme in REMOTE_SCHEMES:
        return _finding(
            "peer uri", look, Result.WARN, f"not set: {settings.write_uri} is used", "set peer_uri, to be sure"
        )
    mend = "set peer_uri to how the other hosts reach this libvirtd, such as qemu+tls://NAME/system"
    return _finding("peer uri", look, Result.FAIL, f"not set, and {settings.write_uri} is local", mend)


def _migration_uri(look: HostLook) -> Finding:
    given = look.settings.migration_uri
    if given is None:
        mend = "set migration_uri, such as tcp://10.0.0.2 on the migration network"
        return _finding("migration uri", look, Result.FAIL, "not set: no VM is moved to this host", mend)
    parts = urlsplit(given)
    if parts.scheme not in ("tcp", "rdma") or not parts.hostname:
        mend = "write tcp://ADDRESS, an address of this host on the migration network"
        return _finding("migration uri", look, Result.FAIL, f"{given} names no address to connect to", mend)
    if parts.hostname in ("localhost", "127.0.0.1", "::1"):
        mend = "write an address that the other hosts reach"
        return _finding("migration uri", look, Result.FAIL, f"{given} is the source host itself", mend)
    return _finding("migration uri", look, Result.OK, given)


def _port(look: HostLook) -> Finding:
    if look.port.yes is None:
        return _finding("migration port", look, Result.NOT_CHECKED, look.port.detail)
    if look.port.yes:
        return _finding("migration port", look, Result.OK, look.port.detail)
    mend = "let the hosts reach TCP 49152 to 49215 of each other; from here it need not work if from the hosts it does"
    return _finding("migration port", look, Result.WARN, look.port.detail, mend)


def _versions(look: HostLook, others: Sequence[HostLook]) -> Finding:
    mine = look.sample.facts.hypervisor_version if look.sample is not None else None
    if mine is None:
        return _finding("qemu version", look, Result.NOT_CHECKED, "libvirt does not tell it")
    known = [(o.name, o.sample.facts.hypervisor_version) for o in others if o.sample is not None]
    older = [f"{name} ({dotted(v)})" for name, v in known if v is not None and v < mine]
    if older:
        mend = "use machine types that both know, and upgrade the older hosts"
        return _finding("qemu version", look, Result.WARN, f"{dotted(mine)}, newer than {_some(older)}", mend)
    return _finding("qemu version", look, Result.OK, dotted(mine))


def dotted(version: int) -> str:
    """libvirt's integer 9001002 as 9.1.2."""
    return f"{version // 1_000_000}.{version // 1000 % 1000}.{version % 1000}"


# what the VMs that live here need elsewhere


def _verdict(
    check: str, look: HostLook, others: Sequence[HostLook], refused: Mapping[str, Mapping[str, str]], mend: str
) -> Finding:
    """One line out of (VM name → destination → why not)."""
    if not others:
        return _finding(check, look, Result.NOT_CHECKED, "no other host answers")
    if not look.vms:
        return _finding(check, look, Result.OK, "no VM here needs anything")
    if not refused:
        return _finding(check, look, Result.OK, f"all {len(look.vms)} VMs could go to all other hosts")
    nowhere = [name for name, why in refused.items() if len(why) == len(others)]
    name, why = next(iter(refused.items()))
    to, reason = next(iter(why.items()))
    example = f"{name} to {to}: {reason}"
    detail = f"{len(refused)} of {len(look.vms)} VMs cannot go everywhere, {len(nowhere)} nowhere; {example}"
    return _finding(check, look, Result.FAIL if len(nowhere) == len(look.vms) else Result.WARN, detail, mend)


def _collect(look: HostLook, others: Sequence[HostLook], why: Reason) -> dict[str, dict[str, str]]:
    refused: dict[str, dict[str, str]] = defaultdict(dict)
    for vm in look.vms:
        for other in others:
            reason = why(vm, look, other)
            if reason is not None:
                refused[vm.name][other.name] = reason
    return dict(refused)


def _no_storage(vm: VmFacts, look: HostLook, other: HostLook) -> str | None:
    shared = look.settings.storage_domains & other.settings.storage_domains
    local = [f"{d.target} {d.source or d.pool or ''}".strip() for d in vm.disks if not covered(d, shared)]
    return f"no storage declared on both covers {_some(local)}" if local else None


def _no_network(vm: VmFacts, _: HostLook, other: HostLook) -> str | None:
    facts, inventory = other.sample.facts if other.sample else None, other.inventory
    networks = facts.networks if facts is not None else None
    declared, bridges = other.settings.networks, inventory.bridges if inventory is not None else None
    absent = []
    for nic in vm.nics:
        lists = (networks, declared) if nic.kind == "network" else (declared, bridges)
        known = next((names for names in lists if names is not None), None)
        if nic.source is not None and known is not None and nic.source not in known:
            absent.append(f"{nic.kind} {nic.source}")
    return f"lacks {_some(sorted(set(absent)))}" if absent else None


def _no_secret(vm: VmFacts, _: HostLook, other: HostLook) -> str | None:
    inventory = other.inventory
    if inventory is None:
        return None
    lacks = []
    if inventory.secrets is not None:
        lacks += [f"secret {s}" for s in sorted(vm.secrets - inventory.secrets)]
    filters = {n.nwfilter for n in vm.nics if n.nwfilter is not None}
    if inventory.nwfilters is not None:
        lacks += [f"network filter {f}" for f in sorted(filters - inventory.nwfilters)]
    return f"lacks {_some(lacks)}" if lacks else None


def _storage(look: HostLook, others: Sequence[HostLook]) -> Finding:
    refused = _collect(look, others, _no_storage)
    mend = "declare storage that both hosts reach in storage_domains of both (path prefix, or pool:NAME)"
    return _verdict("storage", look, others, refused, mend)


def _networks(look: HostLook, others: Sequence[HostLook]) -> Finding:
    refused = _collect(look, others, _no_network)
    mend = "define the network there and start it, or declare bridges in networks of the host"
    return _verdict("networks", look, others, refused, mend)


def _secrets(look: HostLook, others: Sequence[HostLook]) -> Finding:
    refused = _collect(look, others, _no_secret)
    return _verdict(
        "secrets, filters", look, others, refused, "define them there with virsh, under the same name or UUID"
    )


def _cpu(look: HostLook, others: Sequence[HostLook], fits: Mapping[tuple[str, str], Answer]) -> Finding:
    refused: dict[str, dict[str, str]] = defaultdict(dict)
    unknown: list[str] = []
    for vm in look.vms:
        for other in others:
            answer = _cpu_fit(vm, look, other, fits)
            if answer.yes is False:
                refused[vm.name][other.name] = answer.detail
            elif answer.yes is None:
                unknown.append(f"{vm.name} to {other.name}: {answer.detail}")
    if not refused and unknown:
        mend = 'set the same cpu_group on hosts whose CPUs are alike, or probe = "direct"'
        return _finding("cpu model", look, Result.NOT_CHECKED, f"{len(unknown)} pairs; {unknown[0]}", mend)
    mend = "give such VMs a named CPU model that all hosts have, not host-passthrough"
    return _verdict("cpu model", look, others, dict(refused), mend)


def _cpu_fit(vm: VmFacts, look: HostLook, other: HostLook, fits: Mapping[tuple[str, str], Answer]) -> Answer:
    if vm.virt_type == "qemu":
        return Answer(True, "software emulation brings its own CPU")
    mine, theirs = look.settings.cpu_group, other.settings.cpu_group
    if mine is not None and mine == theirs:
        return Answer(True, f"both in CPU group {mine}")
    if vm.cpu_mode in HOST_CPU_MODES:
        return Answer(False, f"CPU mode {vm.cpu_mode} needs one CPU group, not {mine or 'none'} and {theirs or 'none'}")
    return fits.get((vm.uuid, other.name), Answer(None, "its CPU was not compared"))


def _figures(look: HostLook) -> Finding:
    sample = look.sample
    missing = []
    if sample is not None:
        missing += ["the host's CPU"] if sample.cpu_busy_ns is None else []
        missing += ["the host's memory"] if sample.memory_available_bytes is None else []
        missing += [f"VM {d.name}: {d.fault or 'its XML'}" for d in sample.domains if d.facts is None or d.fault]
    if missing:
        mend = "without figures a host receives nothing and a VM is not moved; see libvirtd's log there"
        return _finding("figures", look, Result.WARN, f"cannot be read: {_some(missing)}", mend)
    return _finding("figures", look, Result.OK, "host and VMs tell their load")


# what only an agent on the host can tell


def _by_agent(look: HostLook) -> list[Finding]:
    agent = look.agent
    checks = ("clock", "files", "name resolution")
    if agent is None or agent.error is not None:
        detail = "no agent_url is set" if agent is None else f"its agent does not answer: {agent.error}"
        mend = "" if agent is None else "see `systemctl status rebalancerd-agent` there"
        return [_finding(check, look, Result.NOT_CHECKED, detail, mend) for check in checks]
    return [
        _clock(look, agent.skew_seconds),
        _listed("files", look, agent.paths, "exists", "mount it there"),
        _listed("name resolution", look, agent.names, "resolves", "add it to DNS or /etc/hosts there"),
    ]


def _clock(look: HostLook, skew: float | None) -> Finding:
    if skew is None:
        return _finding("clock", look, Result.NOT_CHECKED, "its agent does not tell the time")
    detail = f"{abs(skew):.2f} s {'ahead of' if skew >= 0 else 'behind'} this machine"
    mend = "synchronise the clocks (chrony): TLS and libvirt's job figures depend on them"
    if abs(skew) >= CLOCK_FAIL_SECONDS:
        return _finding("clock", look, Result.FAIL, detail, mend)
    return _finding("clock", look, Result.WARN if abs(skew) >= CLOCK_WARN_SECONDS else Result.OK, detail, mend)


def _listed(check: str, look: HostLook, seen: Mapping[str, bool], verb: str, mend: str) -> Finding:
    if not seen:
        return _finding(check, look, Result.NOT_CHECKED, "its agent was not told what to look for")
    absent = sorted(name for name, there in seen.items() if not there)
    if absent:
        return _finding(check, look, Result.FAIL, f"there, no {_some(absent)} {verb}", mend)
    return _finding(check, look, Result.OK, f"every one of {len(seen)} {verb}")


def _some(items: Sequence[str]) -> str:
    head = ", ".join(items[:SHOWN])
    return head if len(items) <= SHOWN else f"{head} and {len(items) - SHOWN} more"
