"""Decision, CycleRecord, Command: what was decided, what a cycle came to, and what operators asked for."""

from dataclasses import dataclass, field
from enum import StrEnum

from rebalancerd.cluster.policy import Mode
from rebalancerd.cluster.refusal import Refusal


class Outcome(StrEnum):
    """What became of a step or a cycle."""

    NO_ACTION = "no_action"
    PROPOSED = "proposed"  # recommend mode, or waiting for approval
    STARTED = "started"
    REFUSED = "refused"
    SKIPPED = "skipped"  # preflight right before the move
    FAILED = "failed"  # the cycle itself failed (a bug): nothing was done


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What happened to one step of a plan in one cycle."""

    plan_id: str
    step: int
    vm_uuid: str
    vm_name: str
    source: str
    destination: str
    outcome: Outcome
    refusal: Refusal | None = None
    migration_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class HostPressure:
    """How a host looked to a cycle: shares of usable capacity (1.0 full), None where unknown."""

    host: str
    cpu_now: float | None
    cpu_p95: float | None
    memory_now: float | None
    memory_p95: float | None
    vms: int
    unusable: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CycleRecord:
    """The one record a cycle leaves, "no action" included. ``id`` 0 until the ledger numbers it."""

    id: int
    started_at: float
    seconds: float
    mode: Mode
    policy: str
    outcome: Outcome
    reason: str
    snapshot_digest: str | None = None
    plan_id: str | None = None
    hosts: tuple[HostPressure, ...] = ()
    hot_hosts: tuple[str, ...] = ()
    moving: int = 0
    decisions: tuple[Decision, ...] = ()
    refusals: tuple[Refusal, ...] = ()
    step_seconds: tuple[tuple[str, float], ...] = ()


class CommandKind(StrEnum):
    """What an operator can ask for. Every command is a ledger row, so it survives restarts."""

    PAUSE = "pause"
    RESUME = "resume"
    DRAIN = "drain"
    UNDRAIN = "undrain"
    APPROVE = "approve"
    REJECT = "reject"
    APPLY = "apply"
    ABORT = "abort"
    CLOSE_BREAKER = "close_breaker"
    CLEAR_QUARANTINE = "clear_quarantine"
    POWER_SLEEP = "power_sleep"
    POWER_WAKE = "power_wake"
    POWER_TEST = "power_test"


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """An operator's command. ``subject``: host, plan id or VM; ``step`` and ``digest`` for approvals. ``by`` is who."""

    id: int
    kind: CommandKind
    at: float
    by: str
    subject: str | None = None
    step: int | None = None
    digest: str | None = None
    until: float | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorState:
    """What all commands so far add up to. ``power``: the last word about each host's power. ``approved`` and ``rejected``: (plan digest, step or 0 for all) to who."""

    paused: Command | None = None
    drained: frozenset[str] = field(default_factory=frozenset)
    approved: tuple[Command, ...] = ()
    rejected: tuple[Command, ...] = ()
    applied: tuple[Command, ...] = ()
    breaker_closed_at: float | None = None
    resumed_at: float | None = None
    quarantine_cleared: tuple[tuple[str, float], ...] = ()
    power: tuple[Command, ...] = ()
