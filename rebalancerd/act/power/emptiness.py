"""Whether a host is empty by its own word: running VMs, definitions of shut-off ones, whoever owns them."""

from collections.abc import Callable
from dataclasses import dataclass

from rebalancerd.cluster.refusal import Code, Refusal, about_host
from rebalancerd.cluster.sample import HostInventory
from rebalancerd.ports import HostError, HypervisorRead

NAMED = 4


@dataclass(frozen=True, slots=True)
class Asked:
    """libvirt's answer: why it is not known to be empty (None: it is), and what it said."""

    refusal: Refusal | None
    inventory: HostInventory | None


def ask_if_empty(read: HypervisorRead, host: str, moving: Callable[[str], str | None]) -> Asked:
    """Ask the host's libvirt now, never a cache. A host that does not answer is not empty.

    ``moving``: words about a migration of ours from or to that host, None if there is none.
    """
    if (move := moving(host)) is not None:
        return Asked(about_host(Code.HOST_NOT_EMPTY, host, move), None)
    try:
        inventory = read.inventory(host)
    except HostError as error:
        return Asked(about_host(Code.HOST_UNREACHABLE, host, f"it cannot say whether it is empty: {error}"), None)
    active = [name for _, name, state in inventory.domains if state.is_active]
    defined = [name for _, name, state in inventory.domains if not state.is_active]
    if active:
        return Asked(
            about_host(Code.HOST_NOT_EMPTY, host, f"{_count(active, 'VM')} on it: {_named(active)}"), inventory
        )
    if defined:
        what = f"{_count(defined, 'definition')} of shut-off VMs on it, which could not be started while it sleeps: "
        return Asked(about_host(Code.SHUT_OFF_DEFINITIONS, host, what + _named(defined)), inventory)
    return Asked(None, inventory)


def _count(found: list[str], what: str) -> str:
    return f"{len(found)} {what}{'' if len(found) == 1 else 's'}"


def _named(found: list[str]) -> str:
    more = f" and {len(found) - NAMED} more" if len(found) > NAMED else ""
    return ", ".join(repr(name) for name in sorted(found)[:NAMED]) + more
