"""What the API answers. Every answer names its format version; times are epoch seconds, null is unknown.

Within one format version fields are only added. Infinite bounds are null: no finite bound can be given.
"""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

FORMAT = 1


class Part(BaseModel):
    """A part of an answer: immutable, and deaf to fields that a newer daemon adds."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Answer(Part):
    """An answer with its format version."""

    format: int = FORMAT


class Check(Part):
    """One health condition: a stable code, how bad, of what, and what to do."""

    code: str
    severity: Literal["warn", "err"]
    message: str
    hint: str = ""
    subject: str | None = None


class CycleRow(Part):
    """One cycle in a line."""

    id: int
    at: float
    seconds: float
    mode: str
    policy: str
    outcome: str
    reason: str
    plan_id: str | None = None
    hot_hosts: tuple[str, ...] = ()
    moving: int = 0


class HostRow(Part):
    """One host as the last cycle saw it. Shares of usable capacity: 1.0 is full."""

    name: str
    mode: str
    vms: int
    cpu_now: float | None = None
    cpu_p95: float | None = None
    memory_now: float | None = None
    memory_p95: float | None = None
    age_seconds: float | None = None
    hot: bool = False
    unusable: str | None = None


class MigrationRow(Part):
    """One migration, running or finished. ``predicted_end_at``: its start plus the predicted duration.

    ``estimated_end_at``: from what remains and the present rates; null where the guest dirties memory faster than it
    is sent. ``elapsed_seconds`` counts from the hand-over to libvirt. ``predicted_by``: "physics" or a model id;
    ``inputs_missing``: what widened its bounds. ``late``: longer than the upper bound, running or finished. ``abort``:
    why its abort was ordered.
    """

    id: str
    vm_uuid: str
    vm_name: str
    source: str
    destination: str
    state: str
    intent_at: float
    ours: bool = True
    adopted: bool = False
    plan_id: str | None = None
    step: int | None = None
    started_at: float | None = None
    ended_at: float | None = None
    reason: str = ""
    elapsed_seconds: float | None = None
    predicted_seconds: float | None = None
    predicted_seconds_upper: float | None = None
    predicted_downtime_seconds: float | None = None
    predicted_downtime_seconds_upper: float | None = None
    predicted_bytes: float | None = None
    predicted_bytes_upper: float | None = None
    predicted_slowdown: float | None = None
    predicted_slowdown_upper: float | None = None
    predicted_non_convergence: float | None = None
    predicted_non_convergence_upper: float | None = None
    predicted_by: str | None = None
    inputs_missing: tuple[str, ...] = ()
    late: bool = False
    abort: str | None = None
    predicted_end_at: float | None = None
    estimated_end_at: float | None = None
    total_bytes: int | None = None
    processed_bytes: int | None = None
    remaining_bytes: int | None = None
    rate_bytes_per_second: float | None = None
    dirty_bytes_per_second: float | None = None
    iteration: int | None = None
    throttle: float | None = None
    postcopy: bool = False
    actual_seconds: float | None = None
    actual_downtime_seconds: float | None = None
    actual_bytes: int | None = None


class PlanBrief(Part):
    """The plan under way, in a line. ``benefit``, ``cost``: core-seconds; ``level``: its aggressiveness."""

    id: str
    digest: str
    policy: str
    why: str
    steps: int
    created_at: float
    expires_at: float
    awaits_approval: bool = False
    benefit: float | None = None
    cost: float | None = None
    payback_seconds: float | None = None
    level: str | None = None


class SkillRow(Part):
    """How forecasts so far ahead fared over the last trial. ``skill``: by naive way 1 − MSE(model) ÷ MSE(way).

    ``coverage``: share of values within the central 90 %; ``pinball``: pinball loss at 95 % ÷ that of the best naive way.
    """

    ahead_seconds: float
    skill: dict[str, float]
    coverage: float | None = None
    pinball: float | None = None


class DemandRow(Part):
    """Who forecasts what VMs will ask for. ``basis``: the id of a model that is trusted, or a naive way's name.

    ``id``, ``source``: the model that is seated, trusted or not, and whether it is this cluster's own or shipped.
    ``since``: when ``trusted`` became what it is. ``judged``: whether a whole trial (a day) of scores is there; ``skill``:
    over all horizons against ``best``, the best naive way; ``scored``: forecasts behind it. ``width_low``, ``width_high``:
    by what the model's spread is multiplied on either side to hold what it promises. ``problems``: files refused.
    """

    basis: str
    wanted: bool
    trusted: bool
    reason: str
    since: float
    id: str | None = None
    source: str = ""
    trained_at: float | None = None
    judged: bool = False
    skill: float | None = None
    best: str | None = None
    scored: int = 0
    horizons: tuple[SkillRow, ...] = ()
    width_low: float = 1.0
    width_high: float = 1.0
    problems: tuple[str, ...] = ()


class ModelRow(Part):
    """Who predicts what migrations cost. ``basis``: "physics", or the id of a model that is trusted.

    ``id``, ``source``: the model that is seated, trusted or not, and whether it is this cluster's own or shipped.
    ``since``: when ``trusted`` became what it is. ``rows``: migrations it was judged by; ``error``, ``physics_error``: typical
    factor between predicted and actual duration, 1 is perfect; ``coverage``: share of migrations within their upper bound.
    ``problems``: model files that were refused.
    """

    basis: str
    wanted: bool
    trusted: bool
    reason: str
    since: float
    id: str | None = None
    source: str = ""
    trained_at: float | None = None
    rows: int = 0
    error: float | None = None
    physics_error: float | None = None
    coverage: float | None = None
    problems: tuple[str, ...] = ()


class ReadyRow(Part):
    """Whether the record of advice is good enough for that mode; ``reason``: what is missing, or on what it rests."""

    mode: str
    ready: bool
    reason: str


class AdviceRow(Part):
    """How advice of the last 30 days turned out. ``scored`` = ``right`` + ``needless`` + ``harmful``.

    ``overtaken`` and ``unknown`` could not be judged, ``open`` are not due yet; ``followed``: moved after all.
    ``watched_days``: time in which hosts were measured; ``advised_days``: days with a scored piece. ``hot_seconds``: summed
    over hosts. Hotspots that began: ``foreseen`` by advice, advised on ``late``, or ``unadvised``. ``error``: why these
    figures are not the newest.
    """

    scored: int = 0
    right: int = 0
    needless: int = 0
    harmful: int = 0
    overtaken: int = 0
    unknown: int = 0
    open: int = 0
    followed: int = 0
    watched_days: float = 0.0
    advised_days: int = 0
    hot_seconds: float = 0.0
    foreseen: int = 0
    late: int = 0
    unadvised: int = 0
    ready: tuple[ReadyRow, ...] = ()
    error: str | None = None


class AdvisedRow(Part):
    """One piece of advice. ``verdict``: right, needless, harmful, overtaken, unknown; null while it is not due.

    ``relief``: core-seconds of unmet demand the move takes from its source, ``harm``: that it adds to its destination, as
    measured; peaks are shares of usable capacity; ``hot_after_seconds``: until the source was above its headroom.
    """

    id: int
    at: float
    due_at: float
    vm_uuid: str
    vm_name: str
    source: str
    destination: str
    plan_id: str
    step: int
    basis: str
    probability: float | None = None
    lead_seconds: float | None = None
    predicted_relief: float | None = None
    predicted_cost: float | None = None
    verdict: str | None = None
    reason: str = ""
    followed_at: float | None = None
    relief: float | None = None
    harm: float | None = None
    source_peak: float | None = None
    destination_peak: float | None = None
    hot_after_seconds: float | None = None


class Pause(Part):
    """Why nothing is started, who said so, and until when (null: until resumed)."""

    reason: str
    by: str
    at: float
    until: float | None = None


class LeaderRow(Part):
    """The controller that acts, of those that share a ledger. ``here``: the one that answers."""

    controller: str
    epoch: int
    here: bool


class Status(Answer):
    """The cluster and the daemon in one view. ``policy``: of the last plan.

    ``policy_now``: the one that holds, ``policy_window``: the window it holds in, ``policy_until``: epoch seconds.
    """

    version: str
    health: Literal["HEALTH_OK", "HEALTH_WARN", "HEALTH_ERR"]
    checks: tuple[Check, ...] = ()
    mode: str
    policy: str
    policy_now: str = "balance"
    policy_window: str | None = None
    policy_until: float | None = None
    controller: str
    now: float
    started_at: float
    hosts: tuple[HostRow, ...] = ()
    vms: int = 0
    moving: tuple[MigrationRow, ...] = ()
    moving_limit: int
    cycle: CycleRow | None = None
    plan: PlanBrief | None = None
    model: ModelRow | None = None
    demand: DemandRow | None = None
    advice: AdviceRow | None = None
    paused: Pause | None = None
    drained: tuple[str, ...] = ()
    guard_notes: tuple[str, ...] = ()
    unknowns: int = 0
    leader: LeaderRow | None = None


class Watch(Answer):
    """What runs now, and what ended lately (newest first)."""

    now: float
    mode: str
    migrations: tuple[MigrationRow, ...] = ()
    recent: tuple[MigrationRow, ...] = ()
    hosts: tuple[HostRow, ...] = ()
    cycle: CycleRow | None = None


class PlanAnswer(Answer):
    """A plan as the document of a plan file (rebalancerd.record.planfile), and whether it may be applied here."""

    document: dict[str, Any]
    digest: str
    empty: bool
    mode: str


class SnapshotAnswer(Answer):
    """All that a plan rests on, as the document of a snapshot file (rebalancerd.record.snapshotfile)."""

    document: dict[str, Any]


class Explanation(Answer):
    """Why something was done, or not. ``lines`` are sentences for people, ``facts`` the figures behind them."""

    kind: str
    subject: str
    title: str
    lines: tuple[str, ...]
    facts: dict[str, Any] = Field(default_factory=dict)


class History(Answer):
    """Past migrations, cycles and advice, newest first."""

    now: float
    migrations: tuple[MigrationRow, ...] = ()
    cycles: tuple[CycleRow, ...] = ()
    advice: tuple[AdvisedRow, ...] = ()


class CommandAnswer(Answer):
    """A command that is in the ledger now, and what follows from it in one sentence."""

    id: int
    kind: str
    at: float
    by: str
    subject: str | None = None
    step: int | None = None
    until: float | None = None
    reason: str = ""
    message: str


class PowerRow(Part):
    """One host's power. ``said``: the last word of its management controller; ``boots``: boot times measured so far."""

    host: str
    phase: str
    since: float | None
    reason: str
    by: str
    controlled: bool
    tested_at: float | None
    disabled: str | None
    wake_wanted: str | None
    boot_seconds: float
    boots: int
    said: str | None


class NightRow(Part):
    """What one window of consolidation saved and cost. Times in epoch seconds; ``ended_at`` None: it is under way.

    ``saved_kwh``: ``unfolded_kwh`` less ``actual_kwh`` and ``moves_kwh``. ``asleep_seconds``: by host. ``hot_seconds``:
    host-seconds above headroom, ``caused_seconds`` those that folding caused. ``missed_seconds``: without a reading.
    """

    id: int
    window: str
    mode: str
    began_at: float
    ends_at: float
    noted_at: float
    ended_at: float | None
    saved_kwh: float
    actual_kwh: float
    unfolded_kwh: float
    moves: int
    moves_kwh: float
    asleep_seconds: tuple[tuple[str, float], ...]
    hot_seconds: float
    caused_seconds: float
    accounted_seconds: float
    missed_seconds: float


class NightsAnswer(Answer):
    """The last nights, newest first. ``nights_over``, ``saved_kwh``: of every night on record that is over."""

    now: float
    nights: tuple[NightRow, ...]
    nights_over: int
    saved_kwh: float


class NightAheadAnswer(Answer):
    """What the coming night is rehearsed from: a snapshot file's document, and ``rebalancerd.night.terms`` as JSON."""

    document: dict[str, Any]
    terms: dict[str, Any]


class PowerAnswer(Answer):
    """Host power, and what the last round ordered, could have ordered, and why others stay on: (host, why).

    ``night``: the window of consolidation that is under way, or the last one.
    ``models``: for every host which model of its power is used, and what became of its readings.
    """

    mode: str
    hosts: tuple[PowerRow, ...]
    woken: tuple[tuple[str, str], ...]
    sent_to_sleep: tuple[tuple[str, str], ...]
    could_sleep: tuple[tuple[str, str], ...]
    kept: tuple[tuple[str, str], ...]
    night: NightRow | None = None
    models: tuple[tuple[str, str], ...] = ()


class PowerVerdict(Answer):
    """Whether a host would be put to sleep now, and why not."""

    host: str
    would_sleep: bool
    code: str | None = None
    message: str


class Ping(Answer):
    """Who is there."""

    version: str
    controller: str
    mode: str
    pid: int


class PauseRequest(Part):
    """Start nothing for ``seconds``, or until resumed."""

    seconds: float | None = Field(default=None, gt=0, le=366 * 86400, allow_inf_nan=False)
    reason: str = Field(default="", max_length=500)


class HostRequest(Part):
    """A command about a host."""

    host: str = Field(min_length=1, max_length=255)
    reason: str = Field(default="", max_length=500)


class VmRequest(Part):
    """A command about a VM, by UUID or by a name that only one VM has."""

    vm: str = Field(min_length=1, max_length=255)
    reason: str = Field(default="", max_length=500)


class ApprovalRequest(Part):
    """Approve or reject a plan or one step of it (0 or null: all). ``digest``, where given, must be the plan's."""

    plan: str = Field(min_length=1, max_length=255)
    step: int | None = Field(default=None, ge=0, le=10_000)
    digest: str | None = Field(default=None, max_length=64)
    reason: str = Field(default="", max_length=500)


class ApplyRequest(Part):
    """A plan file's document."""

    document: dict[str, Any]
    reason: str = Field(default="", max_length=500)


class ReasonRequest(Part):
    """A command that needs nothing but, perhaps, a reason."""

    reason: str = Field(default="", max_length=500)
