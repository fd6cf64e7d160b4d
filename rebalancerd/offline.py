"""Planning away from the cluster: what a planning run looked at, kept, and the very same planner run on it again."""

from collections.abc import Callable, Iterable
from dataclasses import asdict, fields, replace
from typing import Any, TypeVar

from rebalancerd.cluster.quiet import NoQuietHour, QuietHour, QuietOutlook, QuietSpell
from rebalancerd.cluster.snapshot import Snapshot
from rebalancerd.plan.inputs import Costs, PlanInputs
from rebalancerd.plan.settings import PlanSettings
from rebalancerd.plan.what_if import apply
from rebalancerd.plan.what_if_text import WhatIf
from rebalancerd.predict.cost import PhysicsCost
from rebalancerd.predict.cost_kind import Learned
from rebalancerd.predict.hotspot import hotspots
from rebalancerd.predict.keeper import PHYSICS, ModelKeeper
from rebalancerd.predict.manifest import ArtefactError
from rebalancerd.predict.settings import ModelSettings, PredictSettings
from rebalancerd.predict.store import ModelStore
from rebalancerd.record.matrices import pack, unpack
from rebalancerd.record.snapshotfile import BlockedPair, KeptInputs, Settings, SnapshotFileError

T = TypeVar("T", PlanSettings, PredictSettings)


def keep(inputs: PlanInputs, predict: PredictSettings, costs: str) -> KeptInputs:
    """Inputs fit for a file. ``costs``: who predicts what migrations cost, a model's id or "physics"."""
    outlooks = [inputs.quiet[uuid] for uuid in sorted(inputs.quiet)]
    return KeptInputs(
        snapshot=inputs.snapshot,
        scenarios=pack(inputs.scenarios),
        hotspots=inputs.hotspots,
        plan_id=inputs.plan_id,
        plan=asdict(inputs.settings),
        predict=asdict(predict),
        costs=costs,
        drained=tuple(sorted(inputs.drained)),
        blocked_hosts=dict(inputs.blocked_hosts),
        blocked_pairs=tuple(
            BlockedPair(vm_uuid=uuid, destination=host, refusal=refusal)
            for (uuid, host), refusal in sorted(inputs.blocked_pairs.items(), key=lambda item: item[0])
        ),
        resting_vms=dict(inputs.resting_vms),
        quiet_spells=tuple(o for o in outlooks if isinstance(o, QuietSpell)),
        quiet_hours=tuple(o for o in outlooks if isinstance(o, QuietHour)),
        no_quiet_hours=tuple(o for o in outlooks if isinstance(o, NoQuietHour)),
        policy=inputs.policy,
        window_seconds=inputs.window_seconds,
        returned=dict(inputs.returned),
        arrived=dict(inputs.arrived),
        underway=inputs.underway,
        no_sleep=dict(inputs.no_sleep),
        homes=dict(inputs.homes),
        homes_may_return=inputs.homes_may_return,
        day=None if inputs.day is None else pack(inputs.day),
        power=inputs.power,
    )


def restore(kept: KeptInputs, costs: Costs) -> PlanInputs:
    """The inputs as they were. Raises SnapshotFileError where they do not fit together or are of another version."""
    try:
        scenarios = unpack(kept.scenarios)
        day = None if kept.day is None else unpack(kept.day)
    except ValueError as error:
        raise SnapshotFileError(str(error)) from error
    missing = [vm.uuid for vm in kept.snapshot.vms if vm.uuid not in scenarios.row]
    if missing:
        raise SnapshotFileError(f"its scenarios lack VMs of its snapshot: {', '.join(missing[:3])}")
    outlooks: tuple[QuietOutlook, ...] = (*kept.quiet_spells, *kept.quiet_hours, *kept.no_quiet_hours)
    return PlanInputs(
        snapshot=kept.snapshot,
        scenarios=scenarios,
        hotspots=kept.hotspots,
        costs=costs,
        settings=_settings(PlanSettings, kept.plan),
        plan_id=kept.plan_id,
        drained=frozenset(kept.drained),
        blocked_hosts=kept.blocked_hosts,
        blocked_pairs={(p.vm_uuid, p.destination): p.refusal for p in kept.blocked_pairs},
        resting_vms=kept.resting_vms,
        quiet={outlook.vm_uuid: outlook for outlook in outlooks},
        policy=kept.policy,
        window_seconds=kept.window_seconds,
        returned=kept.returned,
        arrived=kept.arrived,
        underway=kept.underway,
        no_sleep=kept.no_sleep,
        homes=kept.homes,
        homes_may_return=kept.homes_may_return,
        day=day,
        power=kept.power,
    )


def changed(inputs: PlanInputs, what_ifs: Iterable[WhatIf]) -> PlanInputs:
    """The inputs after those changes, one after the other, their hotspots worked out anew where a host's load changed.

    A plan from them has expired when it is made: it is not for a cluster in which nothing of this is so. Raises WhatIfError.
    """
    before = inputs
    for what_if in what_ifs:
        inputs = apply(inputs, what_if)
    if inputs is before:
        return inputs
    touched = _touched(before.snapshot, inputs.snapshot)
    settings = inputs.settings
    fresh = hotspots(
        inputs.snapshot,
        inputs.scenarios,
        cpu_headroom=settings.cpu_headroom,
        memory_headroom=settings.memory_headroom,
        probability=settings.hot_probability,
    )
    spots = [*(s for s in before.hotspots if s.host not in touched), *(s for s in fresh if s.host in touched)]
    ranked = sorted(spots, key=lambda s: (-max(s.now, s.peak_p95) / s.headroom, s.host, s.resource))
    shot, settings = inputs.snapshot, replace(settings, expiry_seconds=0.0)
    return replace(
        inputs, hotspots=tuple(ranked), settings=settings, plan_id=f"w-{shot.digest[:8]}-{int(shot.taken_at)}"
    )


def load_costs(
    kept: KeptInputs, store: ModelStore[Learned], models: ModelSettings, now: Callable[[], float]
) -> tuple[Costs, str]:
    """The cost model that the inputs name and its id; where it is not to be had, the one the daemon would take here.

    Raises SnapshotFileError for settings of another version.
    """
    predict = _settings(PredictSettings, kept.predict)
    if kept.costs == PHYSICS:
        return PhysicsCost(predict), PHYSICS
    for found in store.found():
        if found.id == kept.costs:
            try:
                artefact = store.load(found.path, predict)
            except ArtefactError:
                continue
            return artefact.model, artefact.id
    keeper = ModelKeeper(store, predict, models, now)
    keeper.refresh()
    return keeper.costs, keeper.state().basis


def _touched(before: Snapshot, after: Snapshot) -> frozenset[str]:
    """Hosts that are new, or whose load or guests are not what they were; a mode alone changes neither."""
    found = set()
    for host in after.hosts:
        old = before.host_by_name.get(host.name)
        same = old is not None and replace(old, mode=host.mode) == host
        if not same or before.vms_on[host.name] != after.vms_on[host.name]:
            found.add(host.name)
    return frozenset(found)


def _settings(kind: type[T], given: Settings) -> T:
    known: dict[str, Any] = {f.name: f.default for f in fields(kind)}
    odd = sorted(known.keys() ^ given.keys())
    if odd:
        raise SnapshotFileError(f"is of another version: its settings differ in {odd[0]!r:.60}")
    for name, value in given.items():
        if isinstance(known[name], int) and not isinstance(value, int):
            raise SnapshotFileError(f"its setting {name} is {value}, not a whole number")
        for other in (str, tuple):
            if isinstance(known[name], other) != isinstance(value, other):
                raise SnapshotFileError(f"its setting {name} is {value!r:.60}, not a {type(known[name]).__name__}")
    return kind(**given)  # type: ignore[arg-type]
