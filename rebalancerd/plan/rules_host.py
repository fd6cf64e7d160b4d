"""Constraints on the destination host and on what was learned about it: one small function each."""

from math import isnan

from rebalancerd.cluster.demand import sane
from rebalancerd.cluster.policy import HostMode
from rebalancerd.cluster.refusal import Code, Refusal
from rebalancerd.plan.ask import Ask
from rebalancerd.plan.wording import listed, shown


def same_host(ask: Ask) -> Refusal | None:
    """A move to where it runs is none."""
    if ask.target.name == ask.guest.host:
        return ask.refuse(Code.SAME_HOST, f"it runs on {shown(ask.target.name)} already")
    return None


def target_mode(ask: Ask) -> Refusal | None:
    """Only an active host that nobody drains receives."""
    if ask.target.mode is not HostMode.ACTIVE:
        code = Code.QUARANTINED if ask.target.mode is HostMode.QUARANTINED else Code.HOST_MODE
        return ask.refuse(code, f"{shown(ask.target.name)} is in mode {ask.target.mode.value}")
    if ask.target.name in ask.state.inputs.drained:
        return ask.refuse(Code.HOST_MODE, f"{shown(ask.target.name)} is being drained")
    return None


def target_usable(ask: Ask) -> Refusal | None:
    """A host that is stale, unreachable or absurd is not an empty host."""
    if ask.target.usable:
        return None
    why = ask.target.unusable or "its facts are unknown"
    return ask.refuse(Code.HOST_STALE, f"{shown(ask.target.name)} is not usable: {shown(why)}")


def target_load_known(ask: Ask) -> Refusal | None:
    """Capacity and measured use of the destination must be known: unknown is never zero."""
    target = ask.target
    missing = [
        what
        for what, absent in (
            ("CPU capacity", isnan(ask.state.capacity_cpu[ask.destination])),
            ("memory capacity", isnan(ask.state.capacity_memory[ask.destination])),
            ("CPU use", sane(target.load.cpu_cores) is None),
            ("memory use", sane(target.load.memory_used_bytes) is None),
        )
        if absent
    ]
    if missing:
        return ask.refuse(Code.HOST_LOAD_UNKNOWN, f"unknown on {shown(target.name)}: {', '.join(missing)}")
    return None


def host_blocked(ask: Ask) -> Refusal | None:
    """A host in quarantine keeps the reason it was given."""
    given = ask.state.inputs.blocked_hosts.get(ask.target.name)
    return ask.refuse(given.code, given.detail) if given else None


def pair_blocked(ask: Ask) -> Refusal | None:
    """So does a pair that libvirt refused lately."""
    given = ask.state.inputs.blocked_pairs.get((ask.guest.uuid, ask.target.name))
    return ask.refuse(given.code, given.detail) if given else None


def migration_path(ask: Ask) -> Refusal | None:
    """The source's libvirt must be told where the destination's libvirt and QEMU listen."""
    absent = [
        label
        for label, uri in (("peer URI", ask.target.peer_uri), ("migration URI", ask.target.migration_uri))
        if not uri
    ]
    if absent:
        return ask.refuse(Code.NO_MIGRATION_PATH, f"{shown(ask.target.name)} has no {' and no '.join(absent)}")
    return None


def pinned(ask: Ask) -> Refusal | None:
    """A pinned VM may only be on the hosts it is pinned to."""
    pin = ask.guest.policy.pin
    if not pin or ask.target.name in pin:
        return None
    strange = sorted(pin - ask.state.host_index.keys())
    note = f" (unknown here: {listed(map(shown, strange))})" if strange else ""
    return ask.refuse(Code.PINNED, f"pinned to {listed(map(shown, sorted(pin)))}{note}")


def avoided(ask: Ask) -> Refusal | None:
    """Hosts that its policy avoids."""
    if ask.target.name in ask.guest.policy.avoid:
        return ask.refuse(Code.AVOIDED, f"its policy avoids {shown(ask.target.name)}")
    return None


RULES = (
    same_host,
    target_mode,
    target_usable,
    target_load_known,
    host_blocked,
    pair_blocked,
    migration_path,
    pinned,
    avoided,
)
