"""PlanInputs: all a planner may look at. Same inputs, same plan."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from rebalancerd.cluster.cost import Candidate, MigrationCost
from rebalancerd.cluster.power import PowerLimits
from rebalancerd.cluster.quiet import QuietOutlook
from rebalancerd.cluster.refusal import Refusal
from rebalancerd.cluster.scenarios import Hotspot, Scenarios
from rebalancerd.cluster.snapshot import Snapshot
from rebalancerd.plan.settings import PlanSettings


class Costs(Protocol):
    """What planning needs of a cost model."""

    def costs(self, snapshot: Snapshot, candidates: Sequence[Candidate]) -> Sequence[MigrationCost]:
        """One cost per candidate, in their order."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanInputs:
    """Snapshot, forecast, costs and limits of one planning run.

    ``drained``: hosts to be emptied and kept empty (configuration or command). ``blocked_hosts``: hosts that may not
    receive now (quarantine), ``blocked_pairs``: (VM UUID, destination) that libvirt refused lately, ``resting_vms``: VMs
    that may not move now (cooldown), each with its refusal; drain ignores the last. ``quiet``: by UUID, when a VM that
    cannot be moved now is quiet enough; asked of few VMs, and one that is missing was never measured. ``policy``:
    ``balance`` or ``consolidate``, None for that of the settings. ``window_seconds``: what is left of the window the
    policy holds for, None for the forecast's horizon. ``returned``: hosts that came back lately, seconds ago;
    ``arrived``: VMs that came to a host within the last hour. ``underway``: the moves of the plan under way that have
    not been started, (VM UUID, destination) in their order. ``no_sleep``: hosts that could not be put to sleep were they
    empty, and why; empty where no host's power is controlled. ``power``: what must stay on, None where nothing is switched.
    ``homes``: once a night is over, where the VMs that it moved were in the evening, by UUID; ``homes_may_return``: a
    home that takes nothing in is still waited for; ``day``: the forecast of the day that begins then, None while there is
    no use for it.
    """

    snapshot: Snapshot
    scenarios: Scenarios
    hotspots: tuple[Hotspot, ...]
    costs: Costs
    settings: PlanSettings
    plan_id: str
    drained: frozenset[str] = field(default_factory=frozenset)
    blocked_hosts: Mapping[str, Refusal] = field(default_factory=dict)
    blocked_pairs: Mapping[tuple[str, str], Refusal] = field(default_factory=dict)
    resting_vms: Mapping[str, Refusal] = field(default_factory=dict)
    quiet: Mapping[str, QuietOutlook] = field(default_factory=dict)
    underway: tuple[tuple[str, str], ...] = ()
    policy: str | None = None
    window_seconds: float | None = None
    returned: Mapping[str, float] = field(default_factory=dict)
    arrived: Mapping[str, int] = field(default_factory=dict)
    no_sleep: Mapping[str, Refusal] = field(default_factory=dict)
    power: PowerLimits | None = None
    homes: Mapping[str, str] = field(default_factory=dict)
    homes_may_return: bool = False
    day: Scenarios | None = None

    @property
    def unbounded_inflow(self) -> bool:
        """Whether arrivals at a host are not counted: filling hosts is what consolidation is."""
        return self.policy_now == "consolidate" or not (self.settings.inflow_max_per_host or self.returned)

    @property
    def policy_now(self) -> str:
        """The policy to plan by."""
        return self.settings.policy if self.policy is None else self.policy

    @property
    def window_left_seconds(self) -> float:
        """For how long a placement made now is expected to hold."""
        return self.scenarios.horizon_seconds if self.window_seconds is None else self.window_seconds
