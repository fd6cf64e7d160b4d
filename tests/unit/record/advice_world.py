"""A window of hand-made history: two hosts of 8 cores, a guest that was to go from one to the other, one more on each."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from rebalancerd.cluster.advice import Advice, AdvisedMove, HostTerms
from rebalancerd.cluster.host import Host, HostFacts
from rebalancerd.cluster.series import Series
from rebalancerd.cluster.snapshot import Snapshot
from rebalancerd.cluster.stays import Stays
from rebalancerd.cluster.units import GIB
from rebalancerd.cluster.vm import DomainState, Vm, VmFacts
from rebalancerd.record.hindsight import Past

STEP = 300.0
T0 = 1_700_002_800.0  # on a step
ROWS = 6
DUE = T0 + ROWS * STEP
VM, BESIDE, THERE = "vm", "beside", "there"
NAN = float("nan")

Load = float | Sequence[float]


def host(name: str, **changes: object) -> Host:
    """8 cores, 32 GiB."""
    facts = HostFacts(uuid=f"uuid-{name}", cpus=8, memory_bytes=32 * GIB)
    return replace(Host(name=name, facts=facts, cores=8.0, memory_bytes=32 * GIB), **changes)


def vm(uuid: str, where: str, vcpus: int = 8) -> Vm:
    """A guest of 4 GiB."""
    facts = VmFacts(uuid=uuid, name=f"name-{uuid}", vcpus=vcpus, memory_bytes=4 * GIB)
    return Vm(facts=facts, host=where, state=DomainState.RUNNING)


def snapshot(hosts: Sequence[Host] = (), vms: Sequence[Vm] = ()) -> Snapshot:
    """The cluster as it is when advice is judged."""
    return Snapshot(
        taken_at=DUE + 2 * STEP,
        hosts=tuple(hosts) or (host("a"), host("b"), host("c")),
        vms=tuple(vms) or (vm(VM, "a"), vm(BESIDE, "a"), vm(THERE, "b")),
    )


def advice(hosts: Sequence[Host] = (), **changes: object) -> Advice:
    """The guest was to go from a to b."""
    terms = [HostTerms.of(h) for h in (hosts or (host("a"), host("b")))]
    made = Advice(
        id=1,
        proposed_at=T0,
        due_at=DUE,
        plan_id="p-1",
        step=1,
        move=AdvisedMove(vm_uuid=VM, source="a", destination="b"),
        vm_name="name-vm",
        vcpus=8,
        memory_bytes=4 * GIB,
        before=(),
        hosts=tuple(t for t in terms if t is not None),
        cpu_headroom=0.8,
        memory_headroom=0.85,
        cores_per_byte=8 / (32 * GIB),
        resource="cpu",
        probability=0.9,
        lead_seconds=600.0,
        source_peak=0.95,
        destination_peak=0.4,
        relief=900.0,
        cost=100.0,
        move_seconds=20.0,
        basis="persistence",
    )
    return replace(made, **changes)


def past(
    used: Mapping[str, Load],
    *,
    own: Mapping[str, Load] | None = None,
    held: Mapping[str, float] | None = None,
    waited: Mapping[str, Load] | None = None,
    stays: Mapping[str, tuple[tuple[float, str | None], ...]] | None = None,
    gaps: Sequence[tuple[str, int]] = (),
    rows: int = ROWS,
) -> Past:
    """History of that many rows from ``T0`` on.

    ``used``: cores of each guest; ``own``: cores and ``held``: GiB of hosts beside their guests (guests hold 2 GiB each);
    a guest's load is on the host where its ``stays`` have it in the middle of a row. ``gaps``: (guest or host, row).
    """
    where = {VM: "a", BESIDE: "a", THERE: "b"}
    known = Stays({uuid: (stays or {}).get(uuid, ((0.0, where.get(uuid, "a")),)) for uuid in used})
    middles = T0 + STEP * (np.arange(rows) + 0.5)
    guests = {uuid: np.broadcast_to(np.asarray(load, dtype=float), rows).copy() for uuid, load in used.items()}
    memory = {uuid: np.full(rows, 2.0 * GIB) for uuid in used}
    busy = {h: np.broadcast_to(np.asarray((own or {}).get(h, 0.2), dtype=float), rows).copy() for h in ("a", "b", "c")}
    total = {h: np.full(rows, (held or {}).get(h, 1.0) * GIB) for h in busy}
    for uuid, load in guests.items():
        for row, middle in enumerate(middles):
            there = known.host_at(uuid, float(middle))
            if there is None:
                load[row] = memory[uuid][row] = NAN
            else:
                busy[there][row] += load[row]
                total[there][row] += memory[uuid][row]
    delay = {
        uuid: np.broadcast_to(np.asarray((waited or {}).get(uuid, 0.0), dtype=float), rows).copy() for uuid in used
    }
    for name, row in gaps:
        for kind in (guests, memory, delay, busy, total):
            if name in kind:
                kind[name][row] = NAN
    kinds = {
        "vm_cpu_cores": guests,
        "vm_steal_cores": delay,
        "vm_memory_bytes": memory,
        "host_cpu_cores": busy,
        "host_memory_bytes": total,
    }
    return Past({name: series(name, columns, rows) for name, columns in kinds.items()}, known)


def series(name: str, columns: Mapping[str, np.ndarray], rows: int) -> Series:
    """Columns as the history gives them."""
    values = np.stack(list(columns.values()), axis=1).astype(np.float32)
    return Series(resource=name, ids=tuple(columns), values=values, step_seconds=STEP, end=T0 + rows * STEP)
