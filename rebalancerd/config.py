"""The configuration: one declaration of a TOML file is its validation, its documentation and its generated example."""

import tomllib
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

from pydantic import Field, ValidationError, field_validator

from rebalancerd import config_checks
from rebalancerd.act.power.settings import HostPower, PowerSettings
from rebalancerd.act.settings import ActSettings
from rebalancerd.cluster.policy import Mode, VmPolicy
from rebalancerd.cluster.power import PowerLimits
from rebalancerd.config_docs import effective, example
from rebalancerd.config_errors import ConfigError, Problem, inline_secrets, of_validation, with_lines, without_secrets
from rebalancerd.config_sections import (
    ActSection,
    GuardSection,
    HostSection,
    LedgerSection,
    LogSection,
    ModelsSection,
    Name,
    ObserveSection,
    PlanSection,
    PowerSection,
    PredictSection,
    RuleSection,
    Section,
    ServeSection,
    Text,
    TicksSection,
    setting,
)
from rebalancerd.guard.settings import GuardSettings, PolicyWindow, Window
from rebalancerd.observe.listening import TlsFiles, tls_files
from rebalancerd.observe.settings import HostSettings, ObserveSettings, PolicyRule
from rebalancerd.plan import aggressiveness
from rebalancerd.plan.settings import PlanSettings
from rebalancerd.predict.settings import ModelSettings, PredictSettings

S = TypeVar("S", bound=Section)
MAX_BYTES = 4 * 1024 * 1024
# limits that planning and guarding share are set once, in [guard]
SHARED_LIMITS = ("min_gain", "payback_max_seconds", "out_per_host", "in_per_host", "per_cluster")


class Config(Section):
    """A configuration that was read and found right. The ``*_settings`` methods give each room its own part."""

    mode: Mode = setting(
        Mode.RECOMMEND, "observe; recommend (moves nothing); guarded (every plan needs approval); auto."
    )
    controller: Name = setting("rebalancerd", "Name of this controller in records of what it did.")
    state_dir: Text = setting("/var/lib/rebalancerd", "Directory of ledger, history and models.")
    pause_file: Text = setting("/run/rebalancerd/pause", "While this file exists nothing is started.")
    i_accept_the_risk: tuple[Text, ...] = setting(
        (), f"Settings that may take a safety away: {', '.join(config_checks.RISKS)}."
    )
    hosts: tuple[HostSection, ...] = Field(min_length=1, description="The hosts of the cluster.")
    ticks: TicksSection = TicksSection()
    ledger: LedgerSection = LedgerSection()
    observe: ObserveSection = ObserveSection()
    predict: PredictSection = PredictSection()
    models: ModelsSection = ModelsSection()
    plan: PlanSection = PlanSection()
    guard: GuardSection = GuardSection()
    act: ActSection = ActSection()
    power: PowerSection = PowerSection()
    rules: tuple[RuleSection, ...] = setting((), "Policies by VM name.")
    serve: ServeSection = ServeSection()
    log: LogSection = LogSection()

    @field_validator("ledger", mode="before")
    @classmethod
    def _is_a_table(cls, given: object) -> object:
        if isinstance(given, str):
            raise ValueError("is a table: write [ledger] and, below it, url = …")  # noqa: TRY004  pydantic tells ValueErrors
        return given

    @property
    def ledger_url(self) -> str:
        """SQLAlchemy URL of the ledger."""
        return self.ledger.url if self.ledger.url is not None else f"sqlite:///{self.state_dir}/ledger.sqlite"

    def host_settings(self) -> tuple[HostSettings, ...]:
        """The declared hosts, in the order of the file."""
        return tuple(HostSettings(**{k: v for k, v in host.values().items() if k != "power"}) for host in self.hosts)

    def observe_settings(self) -> ObserveSettings:
        """Settings of observing, rules and tick lengths included."""
        return ObserveSettings(
            **self.observe.values(),
            sample_seconds=self.ticks.sample,
            probe_interval_seconds=self.ticks.probe,
            rules=tuple(_policy_rule(rule) for rule in self.rules),
        )

    def predict_settings(self) -> PredictSettings:
        """Settings of predicting; a migration that the deadline of acting would end does not converge."""
        return PredictSettings(**self.predict.values(), deadline_seconds=self.act.deadline_seconds)

    def model_settings(self) -> ModelSettings:
        """Settings of learned models."""
        return ModelSettings(**self.models.values())

    @property
    def models_dir(self) -> Path:
        """Where this cluster's own models are."""
        return Path(self.state_dir) / "models"

    def plan_settings(self) -> PlanSettings:
        """Settings of planning, with the limits it shares with guarding."""
        return PlanSettings(**self.plan.values(), **{name: getattr(self.guard, name) for name in SHARED_LIMITS})

    def guard_settings(self) -> GuardSettings:
        """Settings of guarding."""
        values = self.guard.values()
        for field in ("windows", "blackouts"):
            values[field] = tuple(Window(**window.values()) for window in values[field])
        values["policy_windows"] = tuple(PolicyWindow(**w.values()) for w in values["policy_windows"])
        return GuardSettings(**values)

    def act_settings(self) -> ActSettings:
        """Settings of acting."""
        return ActSettings(**self.act.values())

    def power_settings(self) -> PowerSettings:
        """Times of the sequences that put hosts to sleep and wake them."""
        names = {field.name for field in fields(PowerSettings)}
        return PowerSettings(**{k: v for k, v in self.power.values().items() if k in names})

    def power_limits(self) -> PowerLimits:
        """When a host may sleep and when it must wake."""
        names = {field.name for field in fields(PowerLimits)}
        return PowerLimits(**{k: v for k, v in self.power.values().items() if k in names})

    def host_power(self) -> dict[str, HostPower]:
        """How the power of each host is controlled, for those where it is configured."""
        return {host.name: HostPower(**host.power.values()) for host in self.hosts if host.power is not None}

    def metrics_address(self) -> tuple[str, int] | None:
        """Address and port of the metrics, None for nowhere. Raises ValueError (never after ``load``)."""
        text = self.serve.metrics_listen
        if not text:
            return None
        address, colon, port = text.rpartition(":")
        address = address.removeprefix("[").removesuffix("]")
        if not colon or not address or not port.isascii() or not port.isdigit() or not 0 <= int(port[:9]) <= 65535:
            raise ValueError(f"{text!r} is not ADDRESS:PORT")
        return address, int(port)

    def metrics_tls(self) -> TlsFiles | None:
        """Certificates of the metrics' server. Raises TlsError (never after ``load``)."""
        return tls_files(self.serve.metrics_cert_file, self.serve.metrics_key_file, self.serve.metrics_ca_file)


def _policy_rule(rule: RuleSection) -> PolicyRule:
    values = rule.values()
    name, owner = values.pop("name"), values.pop("owner")
    return PolicyRule(name=name, owner=owner, policy=VmPolicy(**values))


def load(path: Path | str) -> Config:
    """Read and check a file. Raises ConfigError with every problem found; raises nothing else."""
    where = Path(path)
    try:
        with where.open("rb") as stream:
            raw = stream.read(MAX_BYTES + 1)
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise ConfigError(where, [Problem(key=(), line=line, reason="is not UTF-8 text")]) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        hint = "make one with `rebalancerd config generate`" if isinstance(error, FileNotFoundError) else ""
        raise ConfigError(where, [Problem(key=(), reason=f"cannot be read: {reason}", hint=hint)]) from None
    if len(raw) > MAX_BYTES:
        raise ConfigError(where, [Problem(key=(), reason=f"is larger than {MAX_BYTES} bytes")])
    return parse(text, where)


def parse(text: str, path: Path | str = "rebalancerd.toml") -> Config:
    """Check a configuration given as text; ``path`` names it in errors. Raises ConfigError only."""
    tree = _tree(text, path)
    found = inline_secrets(tree)
    try:
        cfg = Config.model_validate(tree)
    except ValidationError as error:
        secret = {problem.key for problem in found}
        found += [p for p in of_validation(error, Config) if p.key not in secret]
    else:
        cfg = _levelled(cfg)
        secret = {problem.key for problem in found}
        found += [p for p in config_checks.problems(cfg) if p.key not in secret]
        if not found:
            return cfg
    raise ConfigError(path, with_lines(without_secrets(found, tree), text))


def _levelled(cfg: Config) -> Config:
    """The configuration with what its level of aggressiveness gives where nothing is set singly."""
    given = aggressiveness.values(cfg.plan.aggressiveness)
    sections = {}
    for name in ("plan", "guard"):
        section = getattr(cfg, name)
        open_to = set(type(section).model_fields) - section.model_fields_set
        sections[name] = _unset_copy(section, {n: v for n, v in given.items() if n in open_to})
    return _unset_copy(cfg, sections)


def _unset_copy(section: S, values: Mapping[str, Any]) -> S:
    """A copy with those values in which they do not count as set."""
    copy = section.model_copy(update=dict(values))
    copy.__pydantic_fields_set__ = set(section.model_fields_set)
    return copy


def _tree(text: str, path: Path | str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except RecursionError:
        problem = Problem(key=(), reason="is nested too deeply")
    except ValueError as error:  # TOMLDecodeError, and numbers that int() refuses
        problem = Problem(key=(), reason=f"is not TOML: {error}")
    raise ConfigError(path, [problem])


def reload(path: Path | str, old: Config) -> tuple[Config, str | None]:
    """The file read anew; where it is wrong the old configuration and what is wrong."""
    try:
        return load(path), None
    except ConfigError as error:
        return old, str(error)


def generate() -> str:
    """An example file with every setting, its description and its default."""
    return example(Config)


__all__ = ["Config", "ConfigError", "effective", "generate", "load", "parse", "reload"]
