"""What no single setting can tell: names that clash, hosts that do not exist, addresses, and settings that need a signature."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from rebalancerd import config_power, config_tls
from rebalancerd.cluster.power_curve import table_fault
from rebalancerd.config_errors import Key, Problem, did_you_mean
from rebalancerd.guard.windows import minute_of_day, zone
from rebalancerd.observe.host_uri import HostUriError, check_uri

if TYPE_CHECKING:
    from rebalancerd.config import Config

RISKS = (
    "plan.cpu_headroom",
    "plan.memory_headroom",
    "guard.cooldown",
    "guard.hold_rounds",
    "guard.out_per_host",
    "guard.in_per_host",
    "guard.per_cluster",
    "guard.per_hour",
    "guard.windows",
)
ANY_TIME = 1_767_225_600.0  # 2026-01-01 UTC: from there on windows are looked at
CAPS = ("out_per_host", "in_per_host", "per_cluster")


def problems(cfg: "Config") -> list[Problem]:
    """Everything wrong between the settings of a configuration whose single values are right."""
    return [
        *_hosts(cfg),
        *config_power.problems(cfg),
        *_rules(cfg),
        *_links(cfg),
        *_times(cfg),
        *_policy_windows(cfg),
        *_schedule(cfg),
        *_places(cfg),
        *_relations(cfg),
        *_risks(cfg),
    ]


def _hosts(cfg: "Config") -> Iterator[Problem]:
    names: dict[str, int] = {}
    uris: dict[str, int] = {}
    for index, host in enumerate(cfg.hosts):
        key: Key = ("hosts", index)
        if not host.name.isprintable() or host.name != host.name.strip():
            yield Problem(key=(*key, "name"), reason=f"{host.name!r} has blanks at an end or control characters")
        if (first := names.setdefault(host.name, index)) != index:
            yield Problem(key=(*key, "name"), reason=f"the name {host.name!r} is that of hosts[{first}] already")
        if (first := uris.setdefault(host.uri, index)) != index:
            yield Problem(
                key=(*key, "uri"),
                reason=f"{host.uri!r} is the URI of {cfg.hosts[first].name!r} already: one host, one entry",
            )
        for field in ("uri", "act_uri", "peer_uri"):
            yield from _libvirt_uri(host.name, getattr(host, field), (*key, field))
        yield from _migration_uri(host.migration_uri, (*key, "migration_uri"))
        yield from _http_url(host.agent_url, (*key, "agent_url"))
        if host.cores is not None and host.reserved_cores >= host.cores:
            yield Problem(key=(*key, "reserved_cores"), reason=f"nothing is left of {host.cores:g} cores")
        if host.memory_bytes is not None and host.reserved_memory_bytes >= host.memory_bytes:
            yield Problem(key=(*key, "reserved_memory"), reason="nothing is left of the memory that may be used")
        if host.power_watts is not None and (reason := table_fault(host.power_watts)) is not None:
            yield Problem(key=(*key, "power_watts"), reason=reason)
        if host.idle_watts is not None and host.max_watts is not None and host.idle_watts > host.max_watts:
            yield Problem(
                key=(*key, "idle_watts"),
                reason=f"{host.idle_watts:g} W idle is more than {host.max_watts:g} W when busy",
            )


def _libvirt_uri(host: str, uri: str | None, key: Key) -> Iterator[Problem]:
    if uri is None:
        return
    try:
        check_uri(host, uri)
    except HostUriError as error:
        yield Problem(key=key, reason=str(error).removeprefix(f"host {host}: "))
        return
    if urlsplit(uri).password is not None:
        yield Problem(key=key, reason="a URI holds no password; use ssh keys or client certificates")


def _migration_uri(uri: str | None, key: Key) -> Iterator[Problem]:
    parts = _split(uri)
    if uri is None:
        return
    if parts is None or parts[0] != "tcp" or not parts[1] or not uri.isprintable():
        yield Problem(key=key, reason=f"{uri!r} is not tcp://ADDRESS", hint="libvirt chooses the port")


def _http_url(url: str | None, key: Key) -> Iterator[Problem]:
    parts = _split(url)
    if url is None:
        return
    if parts is None or parts[0] not in ("http", "https") or not parts[1] or not url.isprintable():
        yield Problem(key=key, reason=f"{url!r} is not http://ADDRESS:PORT/metrics")
    elif parts[2]:
        yield Problem(key=key, reason="a URL in the configuration holds no password")


def _split(url: str | None) -> tuple[str, str, bool] | None:
    """Scheme, host name and whether there is a password; None if it is no URL."""
    try:
        parts = urlsplit(url or "")
        _ = parts.port
    except ValueError:
        return None
    return parts.scheme, parts.hostname or "", parts.password is not None


def _links(cfg: "Config") -> Iterator[Problem]:
    known = {host.failure_domain for host in cfg.hosts if host.failure_domain is not None}
    for name, _ in cfg.plan.failure_domain_link_bytes_per_second:
        if name not in known:
            yield Problem(
                key=("plan", "failure_domain_link"),
                reason=f"no host is in the failure domain {name!r}",
                hint=did_you_mean(name, known) or f"failure domains: {', '.join(sorted(known)[:12]) or 'none'}",
            )


def _rules(cfg: "Config") -> Iterator[Problem]:
    known = {host.name for host in cfg.hosts}
    for index, rule in enumerate(cfg.rules):
        for field in ("pin", "avoid", "prefer"):
            for name in sorted(getattr(rule, field) - known):
                yield Problem(
                    key=("rules", index, field),
                    reason=f"there is no host {name!r}",
                    hint=did_you_mean(name, known) or f"hosts: {', '.join(sorted(known)[:12])}",
                )


def _times(cfg: "Config") -> Iterator[Problem]:
    try:
        zone(cfg.guard.timezone)
    except ValueError as error:
        yield Problem(key=("guard", "timezone"), reason=str(error), hint='such as "UTC" or "Europe/Berlin"')
    for field in ("windows", "blackouts"):
        for index, window in enumerate(getattr(cfg.guard, field)):
            for end in ("start", "end"):
                try:
                    minute_of_day(getattr(window, end))
                except ValueError as error:
                    yield Problem(key=("guard", field, index, end), reason=str(error))


def _policy_windows(cfg: "Config") -> Iterator[Problem]:
    from rebalancerd.guard.policy_windows import fault

    for index, window in enumerate(cfg.guard_settings().policy_windows):
        try:
            found = fault(window, cfg.guard.timezone, ANY_TIME)
        except ValueError:
            return  # the zone, told by itself
        if found is not None:
            field, reason = found
            yield Problem(
                key=("guard", "policy_windows", index, field), reason=reason, hint='such as "0 20 * * *" to "0 6 * * *"'
            )


def _schedule(cfg: "Config") -> Iterator[Problem]:
    from rebalancerd.guard.policy_windows import cron_fault

    if cfg.models.train and (reason := cron_fault(cfg.models.train)) is not None:
        hint = 'such as "17 3 * * *", every night at 03:17, or "17 3 * * sun"'
        yield Problem(key=("models", "train"), reason=reason, hint=hint)


def _places(cfg: "Config") -> Iterator[Problem]:
    paths = (
        (("state_dir",), cfg.state_dir),
        (("pause_file",), cfg.pause_file),
        (("serve", "socket"), cfg.serve.socket),
    )
    for key, path in paths:
        if not Path(path).is_absolute() or "\0" in path:
            yield Problem(key=key, reason=f"{path!r} is not an absolute path")
    if len(cfg.serve.socket.encode("utf-8", "surrogatepass")) > 107:
        yield Problem(key=("serve", "socket"), reason="too long for a UNIX socket, 107 bytes at most")
    yield from _ledger(cfg)
    if cfg.serve.metrics_listen:
        try:
            cfg.metrics_address()
        except ValueError as error:
            yield Problem(key=("serve", "metrics_listen"), reason=str(error), hint='such as "127.0.0.1:9177"')
    yield from config_tls.problems(cfg)


def _ledger(cfg: "Config") -> Iterator[Problem]:
    url, password_file, key = cfg.ledger.url, cfg.ledger.password_file, ("ledger", "url")
    shared = url is not None and url.startswith("postgresql")
    if password_file is not None and not shared:
        yield Problem(key=("ledger", "password_file"), reason="only a ledger on PostgreSQL has a password")
    elif password_file is not None and "/" in password_file and not Path(password_file).is_absolute():
        hint = "an absolute path, or the bare name of a systemd credential"
        yield Problem(key=("ledger", "password_file"), reason=f"{password_file!r} is not an absolute path", hint=hint)
    if url is None:
        return
    parts = _split(url)
    if parts is not None and parts[2]:
        hint = "put it into a file and name that in password_file"
        yield Problem(key=key, reason="a URL in the configuration holds no password", hint=hint)
    elif shared:
        yield from _postgres(url, key)
    elif not url.startswith("sqlite:////") or not url.isprintable() or "?" in url or url.endswith("/"):
        reason = f"{url!r} is neither sqlite:////ABSOLUTE/PATH nor postgresql://USER@HOST/DATABASE"
        yield Problem(key=key, reason=reason, hint="a file's URL has four slashes")


def _postgres(url: str, key: Key) -> Iterator[Problem]:
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import SQLAlchemyError

    from rebalancerd.record.postgres import wrong_url

    try:
        wrong = wrong_url(make_url(url)) if url.isprintable() else "holds unprintable characters"
    except (SQLAlchemyError, ValueError) as error:
        wrong = f"is no URL: {error}"
    if wrong is not None:
        yield Problem(key=key, reason=wrong)


def _relations(cfg: "Config") -> Iterator[Problem]:
    guard, observe, predict, ticks = cfg.guard, cfg.observe, cfg.predict, cfg.ticks
    pairs: tuple[tuple[Key, float, str, float], ...] = (
        (("guard", "cooldown_max"), guard.cooldown_max_seconds, "guard.cooldown", guard.cooldown_seconds),
        (("guard", "quarantine_max"), guard.quarantine_max_seconds, "guard.quarantine", guard.quarantine_seconds),
        (("observe", "stale_after"), observe.stale_after_seconds, "ticks.sample", ticks.sample),
        (("predict", "horizon"), predict.horizon_seconds, "predict.step", predict.step_seconds),
        (("predict", "step"), predict.step_seconds, "ticks.sample", ticks.sample),
        (("plan", "max_downtime"), cfg.plan.max_downtime_seconds, "act.downtime_start", cfg.act.downtime_start_seconds),
        (("act", "deadline"), cfg.act.deadline_seconds, "act.deadline_floor", cfg.act.deadline_floor_seconds),
    )
    for key, value, other, least in pairs:
        if value < least:
            yield Problem(key=key, reason=f"{value:g} s is less than {other}, {least:g} s")
    if cfg.models.drift_rows < cfg.models.drift_rows_min:
        reason = f"{cfg.models.drift_rows} is less than models.drift_rows_min, {cfg.models.drift_rows_min}"
        yield Problem(key=("models", "drift_rows"), reason=reason)


def _risks(cfg: "Config") -> Iterator[Problem]:
    for index, name in enumerate(cfg.i_accept_the_risk):
        if name not in RISKS:
            yield Problem(
                key=("i_accept_the_risk", index),
                reason=f"{name!r} is no setting that needs this",
                hint=did_you_mean(name, RISKS) or f"those are {', '.join(RISKS)}",
            )
    for name, reason in _taken(cfg):
        if name not in cfg.i_accept_the_risk:
            section, _, key = name.partition(".")
            hint = f'if it is meant: i_accept_the_risk = ["{name}"]'
            yield Problem(key=(section, key), reason=reason, hint=hint)


def _taken(cfg: "Config") -> Iterator[tuple[str, str]]:
    """Settings whose values take a safety away, and what would follow."""
    for name, value in (("cpu_headroom", cfg.plan.cpu_headroom), ("memory_headroom", cfg.plan.memory_headroom)):
        if value == 0:
            yield f"plan.{name}", "0 makes every host hot at any load"
        elif value > 1:
            yield f"plan.{name}", f"{value:g} lets a host be filled beyond its capacity before anything is done"
    if cfg.guard.cooldown_seconds == 0:
        yield "guard.cooldown", "0 lets a VM be moved again and again without rest"
    if cfg.guard.hold_rounds == 0:
        yield "guard.hold_rounds", "0 acts on a single reading"
    for window in cfg.guard.windows:
        if window.start == window.end:
            yield (
                "guard.windows",
                f"{window.start} to {window.end} is the whole day, on which migrations may begin at any time",
            )
    defaults = type(cfg.guard).model_fields
    for name in (*CAPS, "per_hour"):
        value = getattr(cfg.guard, name)
        if value == 0:
            yield f"guard.{name}", "0 forbids every migration, drains included"
        elif name in CAPS and value > max(len(cfg.hosts), defaults[name].default):
            yield f"guard.{name}", f"{value} migrations at once are more than there are hosts ({len(cfg.hosts)})"
