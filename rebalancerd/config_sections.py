"""The sections of the configuration: each setting with its type, bounds and description; defaults are those of the rooms.

A setting has the name of its field in the room's settings without the unit (``cooldown_seconds`` is ``cooldown``),
because units are written with the value; the full name is accepted as well.
"""

from typing import Annotated, Any, Literal

from pydantic import (
    AliasChoices,
    AliasGenerator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    Strict,
)

from rebalancerd.act.power.settings import HostPower, PowerSettings
from rebalancerd.act.settings import ActSettings
from rebalancerd.cluster.host import HugePages
from rebalancerd.cluster.policy import HostMode, Mode, VmPolicy
from rebalancerd.cluster.power import PowerLimits
from rebalancerd.config_errors import file_key
from rebalancerd.config_units import Bytes, Rate, Seconds, huge_page_pools, named_rates, shown
from rebalancerd.guard.settings import GuardSettings, PolicyWindow, Window
from rebalancerd.observe.settings import HostSettings, ObserveSettings, PolicyRule
from rebalancerd.plan.settings import PlanSettings
from rebalancerd.predict.settings import ModelSettings, PredictSettings
from rebalancerd.record.settings import LedgerSettings

Number = Annotated[float, Strict()]
Whole = Annotated[int, Strict()]
Text = Annotated[str, Strict(), Field(max_length=4096)]
HugePageCounts = Annotated[
    tuple[HugePages, ...],
    BeforeValidator(huge_page_pools),
    PlainSerializer(lambda pools: {shown("size", p.size_bytes): p.total for p in pools}),
]
NamedRates = Annotated[
    tuple[tuple[str, float], ...],
    BeforeValidator(named_rates),
    PlainSerializer(lambda rates: {name: shown("rate", rate) for name, rate in rates}),
]
Flag = Annotated[bool, Strict()]
Name = Annotated[str, Strict(), Field(min_length=1, max_length=255)]
Share = Annotated[float, Strict(), Field(ge=0, le=1)]
Headroom = Annotated[float, Strict(), Field(ge=0, le=2)]
Count = Annotated[int, Strict(), Field(ge=0, le=2**31)]
AtLeastOne = Annotated[int, Strict(), Field(ge=1, le=100_000_000)]
DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")

_LEDGER = LedgerSettings()
_OBSERVE, _PREDICT, _MODELS, _PLAN, _GUARD, _ACT, _POWER, _LIMITS = (
    ObserveSettings(),
    PredictSettings(),
    ModelSettings(),
    PlanSettings(),
    GuardSettings(),
    ActSettings(),
    PowerSettings(),
    PowerLimits(),
)
_HOST_POWER = HostPower(kind="-")
_HOST = HostSettings(name="-", uri="-")
_POLICY, _RULE = VmPolicy(), PolicyRule(name="-")
_WINDOW = Window(start="00:00", end="00:00")
_POLICY_WINDOW = PolicyWindow(start="", end="")


def _aliases(name: str) -> AliasChoices:
    return AliasChoices(file_key(name), name)


def setting(default: Any, description: str, **bounds: Any) -> Any:
    """A setting with the room's default. ``bounds`` as pydantic's Field takes them."""
    return Field(default, description=description, **bounds)


class Section(BaseModel):
    """A table of the file: unknown keys are errors, values never change once loaded."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        allow_inf_nan=False,
        validate_default=False,
        alias_generator=AliasGenerator(validation_alias=_aliases),
    )

    def values(self) -> dict[str, Any]:
        """Values by field name, sections not flattened."""
        return {name: getattr(self, name) for name in type(self).model_fields}


class HostPowerSection(Section):
    """How this host's power is controlled; without it the host is never put to sleep."""

    kind: Literal["redfish", "ipmi", "wake_on_lan", "command"] = Field(
        description="redfish; ipmi; wake_on_lan (needs off_command); command (on_command and off_command).",
        examples=["redfish"],
    )
    address: Text | None = setting(
        _HOST_POWER.address,
        "Its management controller: https://ADDRESS[:PORT] for redfish, ADDRESS[:PORT] for ipmi.",
        examples=["https://bmc1.example"],
    )
    system: Text | None = setting(
        _HOST_POWER.system,
        "Path of the system at a controller that has several.",
        examples=["/redfish/v1/Systems/1"],
    )
    username_file: Text | None = setting(
        _HOST_POWER.username_file,
        "File with the name for the controller; a bare name is a systemd credential (LoadCredential=).",
        examples=["/etc/rebalancerd/bmc-username"],
    )
    password_file: Text | None = setting(
        _HOST_POWER.password_file,
        "File with the password, readable by nobody else.",
        examples=["/etc/rebalancerd/bmc-password"],
    )
    tls_verify: Flag = setting(
        _HOST_POWER.tls_verify, "Check the controller's certificate; false trusts whoever answers at its address."
    )
    ca_file: Text | None = setting(
        _HOST_POWER.ca_file,
        "Certificates that are trusted for it instead of the system's.",
        examples=["/etc/rebalancerd/bmc-ca.pem"],
    )
    mac: Text | None = setting(
        _HOST_POWER.mac, "Hardware address that Wake-on-LAN wakes.", examples=["52:54:00:12:34:56"]
    )
    broadcast: Text = setting(_HOST_POWER.broadcast, "Where the Wake-on-LAN packet is sent, ADDRESS[:PORT].")
    on_command: tuple[Text, ...] = setting(
        _HOST_POWER.on_command,
        "Program and arguments that power it on, no shell; REBALANCERD_HOST names the host; exit code 0 is success.",
    )
    off_command: tuple[Text, ...] = setting(
        _HOST_POWER.off_command, "Program and arguments that shut its operating system down in good order."
    )
    state_command: tuple[Text, ...] = setting(
        _HOST_POWER.state_command, "Program and arguments that tell its power: exit code 0 on, 1 off, others unknown."
    )


class HostSection(Section):
    """One libvirt host of the cluster. Give every host its own name and URI."""

    name: Name = Field(description="Name of the host, as pins, drain and all output call it.", examples=["host1"])
    uri: Name = Field(
        description="libvirt URI: qemu+ssh://NAME/system, qemu+tls://…, qemu+tcp://…, qemu:///system, or "
        "qemu+unix:///system?socket=PATH.",
        examples=["qemu+ssh://rebalancerd@host1/system"],
    )
    ro_socket: Text | None = setting(
        _HOST.ro_socket,
        "Socket for read-only connections where it is not the usual one.",
        examples=["/run/libvirt/libvirt-sock-ro"],
    )
    act_uri: Text | None = setting(
        _HOST.act_uri,
        "libvirt URI for connections that may change things, where another account than that of `uri` does so.",
        examples=["qemu+ssh://rebalancerd@host1/system"],
    )
    peer_uri: Text | None = setting(
        _HOST.peer_uri,
        "Its libvirt URI as the other hosts resolve it, if that is not `uri`.",
        examples=["qemu+tls://host1.migration.example/system"],
    )
    migration_uri: Text | None = setting(
        _HOST.migration_uri,
        "Where the other hosts' QEMU connects: tcp://ADDRESS of the migration network.",
        examples=["tcp://10.0.0.1"],
    )
    mode: HostMode = setting(
        _HOST.mode,
        "active; no_inbound or quarantined (source only); drain or maintenance (emptied and kept empty); observe (neither).",
    )
    cores: Number | None = setting(
        _HOST.cores, "Cores that may be used; not given: as libvirt says.", examples=[30.0], gt=0
    )
    speed_factor: Number = setting(_HOST.speed_factor, "Speed of one core relative to the others' generation.", gt=0)
    memory_bytes: Bytes | None = setting(
        _HOST.memory_bytes, "Memory that may be used; not given: as libvirt says.", examples=["240 GiB"], gt=0
    )
    reserved_cores: Number = setting(_HOST.reserved_cores, "Cores kept for the host itself.", ge=0)
    reserved_memory_bytes: Bytes = setting(_HOST.reserved_memory_bytes, "Memory kept for the host itself.")
    failure_domain: Text | None = setting(
        _HOST.failure_domain, "Rack or room; anti-affinity groups spread over them.", examples=["rack1"]
    )
    storage_domains: frozenset[Text] = setting(
        _HOST.storage_domains, 'Storage it reaches: names, or path prefixes ("/srv/nfs").'
    )
    networks: frozenset[Text] | None = setting(
        _HOST.networks, "Networks and bridges it has; not given: as libvirt says.", examples=[["br0"]]
    )
    cpu_group: Text | None = setting(
        _HOST.cpu_group, "Hosts of one group are declared to have equal CPUs.", examples=["generation1"]
    )
    link_bytes_per_second: Rate = setting(_HOST.link_bytes_per_second, "Rated speed of its migration network.", gt=0)
    memory_overcommit: Number | None = setting(
        _HOST.memory_overcommit, "As `plan.memory_overcommit`, for this host.", examples=[1.5], gt=0, le=16
    )
    hugepages: HugePageCounts | None = setting(
        _HOST.hugepages, "Huge pages it has, by size; not given: as libvirt says.", examples=[{"2 MiB": 8192}]
    )
    agent_url: Text | None = setting(
        _HOST.agent_url,
        "Its metrics agent (`rebalancerd agent`), https://NAME:9178/metrics; http:// on this machine only.",
        examples=["https://host1:9178/metrics"],
    )
    idle_watts: Number | None = setting(
        _HOST.idle_watts,
        "Power it draws when on and idle; consolidation empties hosts that draw most per core first.",
        examples=[90.0],
        ge=0,
    )
    max_watts: Number | None = setting(_HOST.max_watts, "Power it draws with every core busy.", examples=[240.0], ge=0)
    power_watts: tuple[Annotated[Number, Field(ge=0)], ...] | None = setting(
        _HOST.power_watts,
        "In their place a table: watts at 0, 10, … 100 % of its cores busy.",
        examples=[[86.0, 89.4, 92.6, 96.0, 99.5, 102.0, 106.0, 108.0, 112.0, 114.0, 117.0]],
    )
    power: HostPowerSection | None = setting(None, "How its power is controlled, so that it can be put to sleep.")


class ObserveSection(Section):
    """Telemetry: how old it may be, and when it is not believed."""

    call_deadline_seconds: Seconds = setting(
        _OBSERVE.call_deadline_seconds, "Longest wait for one answer of a host.", gt=0
    )
    stale_after_seconds: Seconds = setting(
        _OBSERVE.stale_after_seconds, "A host whose figures are older is neither source nor destination.", gt=0
    )
    flap_stable_seconds: Seconds = setting(
        _OBSERVE.flap_stable_seconds, "A host that came back must answer for this long before it is used."
    )
    unknown_share_max: Share = setting(
        _OBSERVE.unknown_share_max, "With more than this share of the hosts unusable nothing is planned."
    )
    frozen_jump_share: Share = setting(
        _OBSERVE.frozen_jump_share,
        "If more than this share of the VMs jumps to or from zero at once, telemetry is taken for broken.",
    )
    warm_up_samples: Count = setting(_OBSERVE.warm_up_samples, "Samples needed before the first decision.", ge=2)
    probe: Literal["off", "direct"] = setting(
        _OBSERVE.probe, "Measure dirty page rates and CPU fit: direct (by this daemon), or off (bounds widen)."
    )
    probe_periods_seconds: tuple[AtLeastOne, ...] = setting(
        _OBSERVE.probe_periods_seconds, "Periods of a dirty-rate measurement, whole seconds.", min_length=1
    )
    probe_pool_seconds: Seconds = setting(
        _OBSERVE.probe_pool_seconds, "Readings of a VM within this time are pooled.", gt=0
    )
    agent_cert_file: Text | None = setting(
        _OBSERVE.agent_cert_file,
        "Our certificate, shown to agents at https://; an absolute path, or the bare name of a systemd credential.",
        examples=["/etc/rebalancerd/tls/daemon.pem"],
    )
    agent_key_file: Text | None = setting(
        _OBSERVE.agent_key_file, "Its key.", examples=["/etc/rebalancerd/tls/daemon.key"]
    )
    agent_ca_file: Text | None = setting(
        _OBSERVE.agent_ca_file, "CA of the agents' certificates.", examples=["/etc/rebalancerd/tls/ca.pem"]
    )


class PredictSection(Section):
    """Forecasts of demand and of the cost of migrations."""

    horizon_seconds: Seconds = setting(_PREDICT.horizon_seconds, "How far ahead demand is forecast.", gt=0)
    step_seconds: Seconds = setting(
        _PREDICT.step_seconds,
        "Step of the forecast and of the recorded load, 48 h of it; it divides the horizon.",
        ge=5,
        lt=3600,
    )
    paths: AtLeastOne = setting(_PREDICT.paths, "Joint demand paths that are drawn.", le=4096)
    seed: Count = setting(_PREDICT.seed, "Seed of the draws; equal seeds give equal plans.")
    residual_window_steps: AtLeastOne = setting(
        _PREDICT.residual_window_steps, "Recent steps whose errors are drawn from.", le=100_000
    )
    season_seconds: Seconds = setting(
        _PREDICT.season_seconds, "After this long load is expected to come again: a day.", gt=0
    )
    link_efficiency: Share = setting(
        _PREDICT.link_efficiency, "Share of the rated link that migration traffic reaches.", gt=0
    )
    overhead_seconds: Seconds = setting(_PREDICT.overhead_seconds, "libvirt's own handshakes around a migration.")
    switchover_seconds: Seconds = setting(
        _PREDICT.switchover_seconds, "Part of the downtime that does not depend on memory."
    )


class LedgerSection(Section):
    """What is remembered of cycles, plans, migrations and commands: in a SQLite file, or in a PostgreSQL database that
    several controllers share, of which one leads and the others stand by."""

    url: Text | None = setting(
        _LEDGER.url,
        "Where the ledger is; not given: ledger.sqlite in state_dir. Or sqlite:////ABSOLUTE/PATH. No password here.",
        examples=["postgresql://rebalancerd@db.example/rebalancerd?sslmode=verify-full"],
    )
    password_file: Text | None = setting(
        _LEDGER.password_file,
        "File that holds PostgreSQL's password in its first line, or the bare name of a systemd credential.",
        examples=["/etc/rebalancerd/ledger.password"],
    )
    retention_seconds: Seconds = setting(
        _LEDGER.retention_seconds,
        "Cycles, advice and unused plans older than that are forgotten; migrations and commands never.",
        ge=86_400,
    )


class ModelsSection(Section):
    """Learned models: whether one is used, when this cluster trains its own, and by what one is judged."""

    cost: Literal["learned", "physics"] = setting(
        _MODELS.cost, "Who predicts the cost of migrations: a learned model while it is trusted, or physics alone."
    )
    train: Text = setting(
        _MODELS.train,
        "When a model is trained on this cluster's own migrations: minute, hour, day of month, month and day of week as "
        'cron has them (days of the week by name), in guard.timezone; "" for never.',
    )
    own_rows_min: Whole = setting(
        _MODELS.own_rows_min, "Migrations of this cluster that are needed for a training.", ge=20, le=1_000_000
    )
    drift_rows: Whole = setting(
        _MODELS.drift_rows, "The newest migrations by which the model in use is judged.", ge=5, le=10_000
    )
    drift_rows_min: Whole = setting(
        _MODELS.drift_rows_min, "With fewer migrations than these it is not judged.", ge=5, le=10_000
    )
    demand: Literal["learned", "persistence"] = setting(
        _MODELS.demand,
        "Who forecasts what VMs will ask for: a learned model while it earns its place, or persistence alone.",
    )
    demand_trial_hours: Number = setting(
        _MODELS.demand_trial_hours,
        "So long must the demand model be worse than the best naive forecast to be demoted, and better to come back.",
        gt=0,
        le=720,
    )
    demand_history_hours_min: Number = setting(
        _MODELS.demand_history_hours_min,
        "Recorded load of this cluster that is needed for a training of the demand model.",
        ge=12,
        le=840,
    )
    keep: Count = setting(_MODELS.keep, "Superseded models of each kind that are kept.", le=1000)


class PlanSection(Section):
    """When a host counts as hot, and which moves are worth their cost."""

    aggressiveness: Literal["cautious", "calm", "moderate", "eager", "aggressive"] = setting(
        _PLAN.aggressiveness,
        "cautious, calm, moderate, eager or aggressive: gives weight_cost, max_moves, hot_probability, "
        "consolidate_cpu_headroom, consolidate_memory_headroom, guard.min_gain and guard.payback_max where they are not set.",
    )
    cpu_headroom: Headroom = setting(_PLAN.cpu_headroom, "Share of the usable CPU above which a host is hot.")
    memory_headroom: Headroom = setting(_PLAN.memory_headroom, "Share of the usable memory above which a host is hot.")
    memory_overcommit: Number = setting(
        _PLAN.memory_overcommit,
        "Configured memory of guests that a host may have per byte of usable memory; what they use stays below the headroom.",
        gt=0,
        le=16,
    )
    vcpus_per_core_max: Number = setting(
        _PLAN.vcpus_per_core_max, "Most vCPUs per usable core of a host; 0: no cap.", ge=0, le=1000
    )
    n_plus_one: Literal["off", "memory", "memory_and_cpu"] = setting(
        _PLAN.n_plus_one,
        "Whether any one host must be able to die and its VMs find room on the others: off, memory, memory_and_cpu.",
    )
    quantile: Number = setting(
        _PLAN.quantile, "Quantile of the forecast peaks that is held against headrooms.", gt=0, lt=1
    )
    hot_probability: Share = setting(_PLAN.hot_probability, "Probability from which a forecast peak makes a host hot.")
    weight_unmet: Number = setting(_PLAN.weight_unmet, "Weight of expected unmet demand.", ge=0)
    weight_imbalance: Number = setting(_PLAN.weight_imbalance, "Weight of imbalance between hosts.", ge=0)
    weight_cost: Number = setting(_PLAN.weight_cost, "Weight of the migrations' own cost.", ge=0)
    weight_soft: Number = setting(
        _PLAN.weight_soft, "Core-seconds that one broken wish (prefer, soft_affinity, soft_anti_affinity) counts.", ge=0
    )
    max_moves: AtLeastOne = setting(_PLAN.max_moves, "Most moves in one plan.", le=1000)
    work_budget: AtLeastOne = setting(_PLAN.work_budget, "Candidates that one search may evaluate.")
    improve_budget: Count = setting(
        _PLAN.improve_budget, "Swaps, chains and detours tried for hosts that no single move relieves; 0: none."
    )
    solver_nodes: Count = setting(
        _PLAN.solver_nodes,
        "Nodes of the exact solver for each small part of the cluster that is left hot; 0: no solver.",
    )
    expiry_seconds: Seconds = setting(_PLAN.expiry_seconds, "A plan that is older is not carried out.", gt=0)
    max_downtime_seconds: Seconds = setting(
        _PLAN.max_downtime_seconds, "A move with a longer predicted downtime is refused.", gt=0
    )
    max_migration_seconds: Seconds = setting(
        _PLAN.max_migration_seconds, "A move with a longer predicted duration is refused.", gt=0
    )
    link_share_max: Number = setting(
        _PLAN.link_share_max,
        "Share of a host's link that copies at the same time may take together; 0: any.",
        ge=0,
        le=16,
    )
    failure_domain_link_bytes_per_second: NamedRates = setting(
        _PLAN.failure_domain_link_bytes_per_second,
        'Speed of the uplink that the hosts of a failure domain share: { "rack1" = "40 Gbit/s" }; not named: no limit.',
    )
    non_convergence_max: Share = setting(
        _PLAN.non_convergence_max, "A move that is likelier than this never to end is refused."
    )
    inflow_max_per_host: Count = setting(
        _PLAN.inflow_max_per_host,
        "Most VMs that plans may send to one host within an hour, drains apart; 0: any number.",
        le=10_000,
    )
    ramp_seconds: Seconds = setting(
        _PLAN.ramp_seconds, "A host that came back takes a growing number of VMs over this time.", gt=0
    )
    rebalance_min_gain: Share = setting(
        _PLAN.rebalance_min_gain,
        "A move onto a host that came back is made for balance alone if it gains this share of all imbalance; 0: none is.",
    )
    policy: Literal["balance", "consolidate"] = setting(
        _PLAN.policy, "balance (relieve hot hosts), or consolidate (empty hosts, so that they can sleep)."
    )
    consolidate_cpu_headroom: Headroom = setting(
        _PLAN.consolidate_cpu_headroom, "Share of the usable CPU up to which consolidation fills a host."
    )
    consolidate_memory_headroom: Headroom = setting(
        _PLAN.consolidate_memory_headroom, "Share of the usable memory up to which consolidation fills a host."
    )
    consolidate_hosts_min: AtLeastOne = setting(
        _PLAN.consolidate_hosts_min, "Consolidation leaves VMs on at least so many hosts.", le=100_000
    )
    weight_hosts: Number = setting(
        _PLAN.weight_hosts, "Weight of the energy that hosts with VMs draw, while consolidating.", ge=0
    )
    host_idle_watts: Number = setting(
        _PLAN.host_idle_watts, "Idle power of hosts whose own is not given, in watts.", ge=0
    )
    watts_per_core: Number = setting(
        _PLAN.watts_per_core,
        "What the work of one reference core is worth in watts: turns energy into core-seconds.",
        gt=0,
    )
    power_cycle_seconds: Seconds = setting(
        _PLAN.power_cycle_seconds, "Shutting a host down and booting it: so much of a sleep saves nothing."
    )


class PowerSection(Section):
    """Host power: putting empty hosts to sleep and waking them. Nothing of it is done in mode observe or recommend."""

    call_deadline_seconds: Seconds = setting(
        _POWER.call_deadline_seconds, "Longest wait for one answer of a management controller.", gt=0
    )
    poll_seconds: Seconds = setting(_POWER.poll_seconds, "How often a sequence under way is looked at.", gt=0)
    asleep_poll_seconds: Seconds = setting(
        _POWER.asleep_poll_seconds, "How often a host that is asleep is looked at.", gt=0
    )
    awake_poll_seconds: Seconds = setting(
        _POWER.awake_poll_seconds,
        "How often the controller of a host that is on is asked: where it does not answer the host is not emptied to sleep.",
        gt=0,
    )
    empty_settle_seconds: Seconds = setting(
        _POWER.empty_settle_seconds, "A host must be empty twice, so far apart.", ge=1
    )
    closing_deadline_seconds: Seconds = setting(
        _POWER.closing_deadline_seconds, "A host that is not found empty within this time stays on.", gt=0
    )
    shutdown_deadline_seconds: Seconds = setting(
        _POWER.shutdown_deadline_seconds, "A shutdown that is not confirmed within this time has failed.", gt=0
    )
    silent_off_seconds: Seconds = setting(
        _POWER.silent_off_seconds,
        "A host whose way of control cannot tell its state counts as off after libvirt was silent for this long.",
        ge=30,
    )
    wake_deadline_seconds: Seconds = setting(
        _POWER.wake_deadline_seconds, "A host that is not back within this time has failed to wake.", gt=0
    )
    reorder_seconds: Seconds = setting(
        _POWER.reorder_seconds, "A power-on without effect is repeated after this.", gt=0
    )
    retry_failed_seconds: Seconds = setting(
        _POWER.retry_failed_seconds, "A host that failed to wake is tried again this often.", gt=0
    )
    stuck_hold_seconds: Seconds = setting(
        _POWER.stuck_hold_seconds,
        "A host whose shutdown was not confirmed takes nothing in until it has been up for this long.",
        ge=60,
    )
    move_shut_off_definitions: Flag = setting(
        _POWER.move_shut_off_definitions,
        "Before a host sleeps, have libvirt move the definitions of shut-off domains on it to others (offline migration); "
        "false: such a host stays on.",
    )
    boot_seconds: Seconds = setting(
        _LIMITS.boot_seconds, "Assumed time from power-on to libvirt's answer, until it was measured.", gt=0
    )
    min_up_seconds: Seconds = setting(_LIMITS.min_up_seconds, "A host that came up stays up for this long.")
    min_down_seconds: Seconds = setting(
        _LIMITS.min_down_seconds, "A host sleeps only if it is not needed for this long; need wakes it at any time."
    )
    by_hand_seconds: Seconds = setting(
        _LIMITS.by_hand_seconds, "A host that somebody powered on by hand is left on for this long."
    )
    sleep_at_once: AtLeastOne = setting(
        _LIMITS.sleep_at_once, "Hosts that may be on their way to sleep at once.", le=1000
    )
    hosts_on_min: AtLeastOne = setting(_LIMITS.hosts_on_min, "Hosts that are on at any time.", le=100_000)
    spare_hosts: Count = setting(
        _LIMITS.spare_hosts, "What is on must carry the demand with so many of its largest hosts dead.", le=1000
    )
    cpu_headroom: Share = setting(
        _LIMITS.cpu_headroom, "Share of the CPU that is on which forecast demand may reach.", gt=0
    )
    memory_headroom: Share = setting(
        _LIMITS.memory_headroom, "Share of the memory that is on which forecast demand may reach.", gt=0
    )
    quantile: Number = setting(
        _LIMITS.quantile, "Quantile of the cluster's forecast demand that must be carried.", ge=0.5, lt=1
    )
    unfold_seconds: Seconds = setting(_LIMITS.unfold_seconds, "Time that migrations back onto a woken host take.")
    margin_seconds: Seconds = setting(_LIMITS.margin_seconds, "Time by which hosts are back before they are needed.")
    surprise_share: Number = setting(
        _LIMITS.surprise_share, "A host is woken at once when demand is above its forecast bound by this share.", gt=0
    )
    command_max_age_seconds: Seconds = setting(
        _LIMITS.command_max_age_seconds,
        "An operator's power command that could not be obeyed for this long is void.",
        gt=0,
    )


def _day(value: Any) -> Any:
    if isinstance(value, str) and value.strip().lower()[:3] in DAYS and len(value) <= 9:
        return DAYS.index(value.strip().lower()[:3])
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= 6:
        raise ValueError('a day is "mon" to "sun", or 0 (Monday) to 6')
    return value


class WindowSection(Section):
    """Local times of day."""

    start: Text = Field(description="Beginning, HH:MM.", examples=["01:00"])
    end: Text = Field(description="End, HH:MM; before the beginning: on the next day.", examples=["05:30"])
    days: tuple[Annotated[int, BeforeValidator(_day)], ...] = setting(
        _WINDOW.days, "Days on which it begins.", min_length=1
    )
    name: Text = setting(_WINDOW.name, "What it is called in explanations.")


class PolicyWindowSection(Section):
    """A time in which another policy than `plan.policy` holds, such as consolidation at night."""

    start: Text = Field(
        description="Beginning, as cron has it (days of the week by name), in guard.timezone.",
        examples=["0 20 * * *"],
    )
    end: Text = Field(description="End, likewise: the first time after the beginning.", examples=["0 6 * * *"])
    policy: Literal["balance", "consolidate"] = setting(_POLICY_WINDOW.policy, "The policy that holds in it.")
    unfold_seconds: Seconds = setting(
        _POLICY_WINDOW.unfold_seconds, "So long before the end, balancing begins to spread the VMs again."
    )
    name: Text = setting(_POLICY_WINDOW.name, "What it is called in explanations.")


class GuardSection(Section):
    """Limits that hold whatever was planned. Caps count the migrations that are observed, others' included."""

    timezone: Text = setting(_GUARD.timezone, 'Time zone of windows and blackouts, such as "Europe/Berlin".')
    cooldown_seconds: Seconds = setting(_GUARD.cooldown_seconds, "A VM that was moved rests for this long.")
    cooldown_growth: Number = setting(
        _GUARD.cooldown_growth, "The rest grows by this factor with each recent move.", ge=1, le=100
    )
    cooldown_max_seconds: Seconds = setting(_GUARD.cooldown_max_seconds, "Longest rest.")
    cooldown_memory_seconds: Seconds = setting(_GUARD.cooldown_memory_seconds, "How long a move counts as recent.")
    out_per_host: Count = setting(_GUARD.out_per_host, "Migrations that may leave one host at once.")
    in_per_host: Count = setting(_GUARD.in_per_host, "Migrations that may enter one host at once.")
    per_cluster: Count = setting(_GUARD.per_cluster, "Migrations that may run in the cluster at once.")
    per_hour: Count = setting(_GUARD.per_hour, "Migrations that may begin within an hour.")
    per_vm_per_day: AtLeastOne = setting(
        _GUARD.per_vm_per_day, "Migrations of one VM within a day; a drain may exceed it.", le=1000
    )
    hold_rounds: Count = setting(_GUARD.hold_rounds, "Cycles in a row for which a host must have been hot.")
    min_gain: Share = setting(_GUARD.min_gain, "Smallest improvement of the score for which anything is moved.")
    payback_max_seconds: Seconds = setting(
        _GUARD.payback_max_seconds, "A move must repay its cost within this time.", gt=0
    )
    breaker_failures: AtLeastOne = setting(
        _GUARD.breaker_failures, "So many failed migrations open the circuit breaker.", le=1000
    )
    breaker_window_seconds: Seconds = setting(
        _GUARD.breaker_window_seconds, "Time within which failures are counted.", gt=0
    )
    quarantine_seconds: Seconds = setting(
        _GUARD.quarantine_seconds, "A host at which a migration failed receives nothing for this long."
    )
    quarantine_max_seconds: Seconds = setting(
        _GUARD.quarantine_max_seconds, "Longest quarantine; each failure doubles it."
    )
    blocked_pair_seconds: Seconds = setting(
        _GUARD.blocked_pair_seconds, "A VM that libvirt refused on a host is not tried there again for this long."
    )
    reverse_tabu_seconds: Seconds = setting(
        _GUARD.reverse_tabu_seconds, "A VM does not go back to where it came from for this long."
    )
    windows: tuple[WindowSection, ...] = setting((), "Times at which migrations may begin; none: always.")
    blackouts: tuple[WindowSection, ...] = setting((), "Times at which none begins, such as backups.")
    policy_windows: tuple[PolicyWindowSection, ...] = setting(
        (), "Times at which another policy holds than plan.policy, such as consolidation at night."
    )


class ActSection(Section):
    """How a migration is driven, and when it is given up."""

    downtime_start_seconds: Seconds = setting(
        _ACT.downtime_start_seconds, "Allowed downtime at first; it rises to the move's limit.", gt=0
    )
    downtime_steps: AtLeastOne = setting(_ACT.downtime_steps, "In how many steps it rises.", le=100)
    stall_seconds: Seconds = setting(_ACT.stall_seconds, "No progress for this long: abort.", gt=0)
    deadline_seconds: Seconds = setting(_ACT.deadline_seconds, "No migration runs longer.", gt=0)
    deadline_factor: Number = setting(
        _ACT.deadline_factor, "Nor longer than this times the upper bound of its prediction.", ge=1
    )
    deadline_floor_seconds: Seconds = setting(_ACT.deadline_floor_seconds, "Least time every migration is given.")
    abort_patience_seconds: Seconds = setting(
        _ACT.abort_patience_seconds, "An abort without effect for this long is told as stuck.", gt=0
    )
    start_before_seconds: Seconds = setting(
        _ACT.start_before_seconds, "The libvirt call begins within this time of its record, or never.", gt=0
    )
    lease_seconds: Seconds = setting(
        _ACT.lease_seconds, "Longest time for which a controller may believe to hold a lease it lost.", gt=0
    )
    poll_seconds: Seconds = setting(_ACT.poll_seconds, "How often a running migration is looked at.", gt=0)
    settle_seconds: Seconds = setting(
        _ACT.settle_seconds, "How long an unclear picture of the two hosts must hold before it is believed."
    )
    lost_source_seconds: Seconds = setting(
        _ACT.lost_source_seconds, "How long a source may be silent before the verdict is taken without it.", gt=0
    )


class RuleSection(Section):
    """A policy for the VMs whose name matches. The strictest mode of all rules and of the VM's own metadata wins."""

    name: Name = Field(description="Shell pattern of VM names.", examples=["db-*"])
    owner: Text | None = setting(
        _RULE.owner,
        'Another controller that has these VMs ("pacemaker"): never moved. "none": nobody else has them.',
        examples=["pacemaker"],
    )
    mode: Mode | None = setting(
        _POLICY.mode, "observe, recommend, guarded or auto; not given: the cluster's.", examples=["guarded"]
    )
    pin: frozenset[Text] = setting(_POLICY.pin, "Hosts on which they may be; empty: any.")
    avoid: frozenset[Text] = setting(_POLICY.avoid, "Hosts to which they are never moved.")
    affinity: frozenset[Text] = setting(_POLICY.affinity, "Groups whose members stay on one host.")
    anti_affinity: frozenset[Text] = setting(_POLICY.anti_affinity, "Groups whose members stay on different hosts.")
    prefer: frozenset[Text] = setting(_POLICY.prefer, "Hosts they go to where the rules leave a choice.")
    soft_affinity: frozenset[Text] = setting(
        _POLICY.soft_affinity, "Groups whose members go together where the rules leave a choice."
    )
    soft_anti_affinity: frozenset[Text] = setting(
        _POLICY.soft_anti_affinity, "Groups whose members go apart where the rules leave a choice."
    )
    priority: Whole = setting(_POLICY.priority, "Higher is moved later.", ge=-1000, le=1000)
    postcopy: Flag = setting(_POLICY.postcopy, "Allow post-copy (only the configuration can).")
    auto_converge: Flag = setting(
        _POLICY.auto_converge, "Allow QEMU to throttle the guest where the copy would not end otherwise."
    )
    max_downtime_seconds: Seconds | None = setting(
        _POLICY.max_downtime_seconds, "Longest downtime; not given: the cluster's.", examples=["300 ms"], gt=0
    )


class ServeSection(Section):
    """The API on a UNIX socket and the Prometheus metrics."""

    socket: Name = setting(
        "/run/rebalancerd/api.sock", "UNIX socket of the API, by which the commands reach the daemon."
    )
    allowed_uids: tuple[Count, ...] = setting(
        (), "User ids that may use the socket besides root and the daemon's own.", max_length=1000
    )
    metrics_listen: Text = setting(
        "127.0.0.1:9177",
        'Where Prometheus metrics are served, ADDRESS:PORT; "" for nowhere. Others than this machine\'s own '
        "addresses need the three files below.",
    )
    metrics_cert_file: Text | None = setting(
        None,
        "Certificate of the metrics' server; an absolute path, or the bare name of a systemd credential.",
        examples=["/etc/rebalancerd/tls/daemon.pem"],
    )
    metrics_key_file: Text | None = setting(None, "Its key.", examples=["/etc/rebalancerd/tls/daemon.key"])
    metrics_ca_file: Text | None = setting(
        None,
        "CA whose certificates clients of the metrics must show.",
        examples=["/etc/rebalancerd/tls/ca.pem"],
    )


class TicksSection(Section):
    """How often each part of the work is done."""

    sample: Seconds = setting(_OBSERVE.sample_seconds, "Reading of every host.", ge=1)
    probe: Seconds = setting(_OBSERVE.probe_interval_seconds, "Dirty-rate measurement, one VM per host.", ge=1)
    decide: Seconds = setting(60.0, "Prediction, plan and, where the mode allows it, migrations.", ge=1)
    judge: Seconds = setting(300.0, "Judging of the model in use, and the look for a newly trained one.", ge=1)
    housekeep: Seconds = setting(3600.0, "Pruning of old records.", ge=10)


class LogSection(Section):
    """What is logged, on standard error."""

    level: Literal["debug", "info", "warning", "error"] = setting("info", "Least severe level that is logged.")
    format: Literal["auto", "json", "pretty"] = setting("auto", "auto: pretty on a terminal, JSON elsewhere.")
