"""The options a migration may run with: the usual ones, and what else its policy allows where those will not do.

The others are tried in a fixed order, the gentlest first: another part of the downtime that the VM accepts, then QEMU's
auto-converge, which slows the guest down as long as the copy runs. A cap on the bandwidth is not among them, because it
can make no move possible: it slows the copy, so it never helps one to end, and where a shorter switch-over is wanted a
shorter allowed downtime gives it at full speed. No option exceeds the policy of the VM.
"""

from collections.abc import Iterable
from dataclasses import replace

from rebalancerd.cluster.cost import MigrationOptions
from rebalancerd.cluster.vm import Vm
from rebalancerd.plan.settings import PlanSettings
from rebalancerd.plan.wording import span

# What QEMU is allowed, of what the VM accepts: it may use all of that for the last pages, and the fixed part of the
# switch-over (device state, resume) and a link slower than rated come on top. Without the margin no bound ever fits; at
# the default limit of 0.5 s a share of 0.7 is too much already (0.52 s for a guest whose dirty curve is not known).
PRECOPY_SHARE = 0.6
# A guest that leaves much the same remainder after every round may be allowed more, for its bound is that remainder and
# not all it is allowed; of a limit above a second the fixed part takes less. Of a short one it takes more.
LONGER, SHORTER = (0.7, 0.8, 0.9), (0.4, 0.2)


def downtime_limit(vm: Vm, settings: PlanSettings) -> float:
    """Seconds of downtime the VM accepts: its own limit, else the cluster's."""
    own = vm.policy.max_downtime_seconds
    return settings.max_downtime_seconds if own is None else own


def options(vm: Vm, settings: PlanSettings) -> MigrationOptions:
    """The usual options; post-copy only where its policy allows it, and nothing that slows the guest down."""
    return MigrationOptions(
        max_downtime_seconds=PRECOPY_SHARE * downtime_limit(vm, settings), postcopy=vm.policy.postcopy
    )


def others(vm: Vm, settings: PlanSettings) -> tuple[MigrationOptions, ...]:
    """What else its policy allows, in the order in which it is tried."""
    usual, limit = options(vm, settings), downtime_limit(vm, settings)
    found = [replace(usual, max_downtime_seconds=share * limit) for share in (*LONGER, *SHORTER)]
    if vm.policy.auto_converge:
        found += [replace(o, auto_converge=True) for o in (usual, *found)]
    return tuple(found)


def told(chosen: MigrationOptions, usual: MigrationOptions) -> str:
    """What options have that the usual ones do not, e.g. "up to 450 ms of downtime and auto-converge"."""
    parts: Iterable[tuple[bool, str]] = (
        (
            chosen.max_downtime_seconds != usual.max_downtime_seconds,
            f"up to {span(chosen.max_downtime_seconds)} of downtime",
        ),
        (chosen.auto_converge and not usual.auto_converge, "auto-converge"),
    )
    return " and ".join(text for differs, text in parts if differs) or "the usual options"
