"""Refusal: why a candidate did not happen. A closed enum plus subject and detail, readable and countable."""

from dataclasses import dataclass
from enum import StrEnum


class Code(StrEnum):
    """Every reason for which a move, a plan or a cycle can be refused. The value is what metrics count."""

    # nothing is wrong
    BALANCED = "balanced"
    WARMING_UP = "warming_up"
    # data
    HOST_STALE = "host_stale"
    HOST_UNREACHABLE = "host_unreachable"
    HOST_LOAD_UNKNOWN = "host_load_unknown"
    VM_LOAD_UNKNOWN = "vm_load_unknown"
    TELEMETRY_INSANE = "telemetry_insane"
    CLUSTER_PARTLY_UNKNOWN = "cluster_partly_unknown"
    DUPLICATE_HOST_UUID = "duplicate_host_uuid"
    DUPLICATE_VM = "duplicate_vm"
    # hard constraints
    SAME_HOST = "same_host"
    CPU_CAPACITY = "cpu_capacity"
    MEMORY_CAPACITY = "memory_capacity"
    CPU_MODEL = "cpu_model"
    CPU_MODEL_UNKNOWN = "cpu_model_unknown"
    MACHINE_TYPE = "machine_type"
    STORAGE_UNREACHABLE = "storage_unreachable"
    NETWORK_MISSING = "network_missing"
    HUGEPAGES = "hugepages"
    TOPOLOGY = "topology"
    MEMORY_OVERCOMMIT = "memory_overcommit"
    CPU_OVERCOMMIT = "cpu_overcommit"
    N_PLUS_ONE = "n_plus_one"
    LINK_CAP = "link_cap"
    AFFINITY = "affinity"
    ANTI_AFFINITY = "anti_affinity"
    PINNED = "pinned"
    AVOIDED = "avoided"
    IMMOVABLE = "immovable"
    FOREIGN_OWNER = "foreign_owner"
    VM_MODE = "vm_mode"
    CLUSTER_MODE = "cluster_mode"
    HOST_MODE = "host_mode"
    VM_NOT_RUNNING = "vm_not_running"
    VM_BUSY = "vm_busy"
    NO_MIGRATION_PATH = "no_migration_path"
    NO_DESTINATION = "no_destination"
    # rules and sizes that nothing can satisfy
    CONTRADICTION = "contradiction"
    UNKNOWN_NAME = "unknown_name"
    NO_CAPACITY = "no_capacity"
    # cost and gain
    WILL_NOT_CONVERGE = "will_not_converge"
    COST_TOO_HIGH = "cost_too_high"
    GAIN_TOO_SMALL = "gain_too_small"
    PAYBACK_TOO_LONG = "payback_too_long"
    WOULD_BE_HOT = "would_be_hot"
    RAMP = "ramp"
    # consolidation
    HOSTS_MIN = "hosts_min"
    NEEDED = "needed"
    # guard
    HOLD = "hold"
    COOLDOWN = "cooldown"
    REVERSE_MOVE = "reverse_move"
    HOST_CAP = "host_cap"
    CLUSTER_CAP = "cluster_cap"
    HOURLY_CAP = "hourly_cap"
    OUTSIDE_WINDOW = "outside_window"
    BLACKOUT = "blackout"
    PAUSED = "paused"
    BREAKER_OPEN = "breaker_open"
    PLAN_EXPIRED = "plan_expired"
    PLAN_STALE = "plan_stale"
    NOT_APPROVED = "not_approved"
    REJECTED = "rejected"
    QUARANTINED = "quarantined"
    LEASE_LOST = "lease_lost"
    EARLIER_WAVE = "earlier_wave"
    # power: why a host is not put to sleep, or not woken
    NO_POWER_CONTROL = "no_power_control"
    POWER_BUSY = "power_busy"
    POWER_DISABLED = "power_disabled"
    POWER_UNTESTED = "power_untested"
    POWER_FAULT = "power_fault"
    HOST_NOT_EMPTY = "host_not_empty"
    SHUT_OFF_DEFINITIONS = "shut_off_definitions"
    HOST_ASLEEP = "host_asleep"
    HOST_NOT_BACK = "host_not_back"
    MIN_UP_TIME = "min_up_time"
    POWERED_ON_BY_HAND = "powered_on_by_hand"
    NEEDED_FOR_DEMAND = "needed_for_demand"
    HOSTS_ON_MIN = "hosts_on_min"
    NOT_FOLDING = "not_folding"
    # act: found right before the call
    NOT_ON_SOURCE = "not_on_source"
    VM_GONE = "vm_gone"
    NAME_CLASH = "name_clash"
    MISSING_SECRET = "missing_secret"  # noqa: S105
    MISSING_NWFILTER = "missing_nwfilter"
    MANAGED_SAVE = "managed_save"
    AUTOSTART_RIGHT = "autostart_right"
    RIGHTS = "rights"
    LEDGER_UNAVAILABLE = "ledger_unavailable"
    PREFLIGHT_UNKNOWN = "preflight_unknown"
    LIBVIRT_REFUSED = "libvirt_refused"
    TRANSPORT = "transport"  # the way between two hosts failed, not the hosts


class SubjectKind(StrEnum):
    """What a refusal is about."""

    CLUSTER = "cluster"
    HOST = "host"
    VM = "vm"
    PLAN = "plan"


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """One candidate that did not happen, and why.

    ``subject`` is a host name, a VM's UUID, a plan id or "cluster". ``detail`` names the binding fact in words with
    units. ``count`` is how many like it this one stands for (same code, same subject, other destinations).
    """

    code: Code
    kind: SubjectKind
    subject: str
    detail: str
    destination: str | None = None
    count: int = 1

    def __str__(self) -> str:
        """Code and detail, for logs."""
        return f"{self.code}: {self.detail}"


def about_vm(code: Code, vm_uuid: str, detail: str, destination: str | None = None) -> Refusal:
    """A refusal about one VM."""
    return Refusal(code=code, kind=SubjectKind.VM, subject=vm_uuid, detail=detail, destination=destination)


def about_host(code: Code, host: str, detail: str) -> Refusal:
    """A refusal about one host."""
    return Refusal(code=code, kind=SubjectKind.HOST, subject=host, detail=detail)


def about_cluster(code: Code, detail: str) -> Refusal:
    """A refusal about the cluster as a whole."""
    return Refusal(code=code, kind=SubjectKind.CLUSTER, subject="cluster", detail=detail)


def about_plan(code: Code, plan_id: str, detail: str) -> Refusal:
    """A refusal about one plan."""
    return Refusal(code=code, kind=SubjectKind.PLAN, subject=plan_id, detail=detail)
