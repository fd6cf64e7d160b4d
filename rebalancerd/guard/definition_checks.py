"""Where may the definition of a shut-off domain stand instead? By what is declared; the hosts themselves are asked later."""

from collections.abc import Callable, Mapping

from rebalancerd.cluster.host import Host
from rebalancerd.cluster.names import printable
from rebalancerd.cluster.policy import HostMode
from rebalancerd.cluster.refusal import Code, Refusal, about_vm
from rebalancerd.cluster.sample import Definition
from rebalancerd.cluster.snapshot import Snapshot
from rebalancerd.cluster.storage import covered

MOST = 8  # destinations worth asking


def homes(
    definition: Definition, source: str, snapshot: Snapshot, blocked: Mapping[str, Refusal]
) -> tuple[str, ...] | Refusal:
    """Hosts it may be defined on, those that hold VMs first, then by name; or why it stays.

    ``definition``: with the policy and the owner in force; ``blocked``: hosts that take nothing because of power.
    """
    if (stays := _stays(definition)) is not None:
        return stays
    uuid, here = definition.facts.uuid, snapshot.host_by_name.get(source)
    if here is None:
        return about_vm(Code.HOST_STALE, uuid, f"{source} is not known")
    why: Refusal | None = None
    found = []
    for there in sorted(snapshot.hosts, key=lambda h: (not snapshot.vms_on[h.name], h.name)):
        if there.name == source:
            continue
        refusal = blocked.get(there.name) or _closed(definition, here, there)
        if refusal is None:
            found.append(there.name)
        why = why or refusal
    if found:
        return tuple(found[:MOST])
    detail = "there is no other host" if why is None else f"no other host may have it: {why.detail}"
    return about_vm(Code.NO_DESTINATION if why is None else why.code, uuid, _about(definition, detail))


def _stays(definition: Definition) -> Refusal | None:
    """What lies with the domain itself."""
    facts = definition.facts

    def refuse(code: Code, detail: str) -> Refusal:
        return about_vm(code, facts.uuid, _about(definition, detail))

    if facts.owner is not None:
        return refuse(Code.FOREIGN_OWNER, f"belongs to {printable(facts.owner.name)}")
    if facts.policy.mode is not None and not facts.policy.mode.may_act:
        return refuse(Code.VM_MODE, f"is in mode {facts.policy.mode}")
    if facts.faults:
        return refuse(Code.PREFLIGHT_UNKNOWN, printable("; ".join(facts.faults)))
    if definition.kept:
        code = Code.MANAGED_SAVE if facts.has_managed_save else Code.IMMOVABLE
        return refuse(code, f"would leave behind {', '.join(definition.kept)}")
    if facts.immovable:
        return refuse(Code.IMMOVABLE, printable("; ".join(facts.immovable)))
    if facts.autostart is None:
        return refuse(Code.PREFLIGHT_UNKNOWN, "has an autostart flag that cannot be read, so it could not be set again")
    return None


def _closed(definition: Definition, here: Host, there: Host) -> Refusal | None:
    """What speaks against one host, by what is declared of both."""
    facts, policy = definition.facts, definition.facts.policy
    shared = here.storage_domains & there.storage_domains
    local = [disk.target for disk in facts.disks if not covered(disk, shared)]
    checks: tuple[tuple[bool, Code, Callable[[], str]], ...] = (
        (not there.usable, Code.HOST_STALE, lambda: f"{there.name} is not usable"),
        (there.mode is not HostMode.ACTIVE, Code.HOST_MODE, lambda: f"{there.name} is in mode {there.mode}"),
        (bool(policy.pin) and there.name not in policy.pin, Code.PINNED, lambda: f"it is not pinned to {there.name}"),
        (there.name in policy.avoid, Code.AVOIDED, lambda: f"it avoids {there.name}"),
        (
            bool(local),
            Code.STORAGE_UNREACHABLE,
            lambda: (
                f"no storage declared on both {here.name} and {there.name} covers {', '.join(map(printable, local))}"
            ),
        ),
    )
    for closed, code, detail in checks:
        if closed:
            return about_vm(code, facts.uuid, detail(), there.name)
    return None


def _about(definition: Definition, detail: str) -> str:
    return f"the definition of {printable(definition.facts.name)} stays: it {detail}"
