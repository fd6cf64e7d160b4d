"""What a configuration may say, and what is told when it says something else."""

from dataclasses import fields
from pathlib import Path

import pytest

from rebalancerd import config
from rebalancerd.act.settings import ActSettings
from rebalancerd.cluster.host import HugePages
from rebalancerd.cluster.policy import HostMode, Mode, VmPolicy
from rebalancerd.cluster.units import GIB, MIB
from rebalancerd.config import ConfigError
from rebalancerd.config_checks import RISKS
from rebalancerd.config_docs import effective
from rebalancerd.guard.settings import GuardSettings, Window
from rebalancerd.observe.settings import HostSettings, ObserveSettings, PolicyRule
from rebalancerd.plan.settings import PlanSettings
from rebalancerd.predict.settings import ModelSettings, PredictSettings

HOSTS = """
[[hosts]]
name = "h1"
uri = "qemu+ssh://h1/system"

[[hosts]]
name = "h2"
uri = "qemu+unix:///system?socket=/run/h2/libvirt-sock"
"""


def told(text: str) -> str:
    """The message of the error a text gives; ``HOSTS`` is put behind top-level keys."""
    with pytest.raises(ConfigError) as found:
        config.parse(text, "/etc/x.toml")
    message = str(found.value)
    assert all(line.startswith("/etc/x.toml: ") for line in message.splitlines())
    return message


def test_two_hosts_are_enough() -> None:
    """Everything else has a default, and the default mode moves nothing."""
    cfg = config.parse(HOSTS)

    assert cfg.mode is Mode.RECOMMEND
    assert [h.name for h in cfg.host_settings()] == ["h1", "h2"]
    assert cfg.ledger_url == "sqlite:////var/lib/rebalancerd/ledger.sqlite"
    assert cfg.metrics_address() == ("127.0.0.1", 9177)


def test_defaults_are_those_of_the_rooms() -> None:
    """The rooms' dataclasses are the only place where a default is written."""
    cfg = config.parse(HOSTS)

    assert cfg.observe_settings() == ObserveSettings()
    assert cfg.predict_settings() == PredictSettings()
    assert cfg.model_settings() == ModelSettings()
    assert cfg.plan_settings() == PlanSettings()
    assert cfg.guard_settings() == GuardSettings()
    assert cfg.act_settings() == ActSettings()
    assert cfg.host_settings()[0] == HostSettings(name="h1", uri="qemu+ssh://h1/system")


@pytest.mark.parametrize(
    ("kind", "section", "elsewhere"),
    [
        (HostSettings, "HostSection", set()),
        (ObserveSettings, "ObserveSection", {"sample_seconds", "probe_interval_seconds", "rules"}),
        (PredictSettings, "PredictSection", {"deadline_seconds"}),
        (ModelSettings, "ModelsSection", set()),
        (PlanSettings, "PlanSection", set(config.SHARED_LIMITS)),
        (GuardSettings, "GuardSection", set()),
        (ActSettings, "ActSection", set()),
        (Window, "WindowSection", set()),
        (VmPolicy, "RuleSection", set()),
        (PolicyRule, "RuleSection", {"policy"}),
    ],
)
def test_every_setting_of_a_room_can_be_configured(kind: type, section: str, elsewhere: set[str]) -> None:
    """A field added to a room's settings must be added to its section, or be told here where it is set."""
    from rebalancerd import config_sections

    declared = set(getattr(config_sections, section).model_fields)

    missing = {f.name for f in fields(kind)} - declared - elsewhere
    assert missing == set()


def test_shared_settings_reach_every_room() -> None:
    cfg = config.parse(
        HOSTS + "[guard]\nper_cluster = 1\nmin_gain = 0.2\npayback_max = '2 h'\n"
        "[act]\ndeadline = '20 min'\n[ticks]\nsample = 5\nprobe = 15\n"
    )

    assert cfg.plan_settings().per_cluster == cfg.guard_settings().per_cluster == 1
    assert cfg.plan_settings().min_gain == cfg.guard_settings().min_gain == 0.2
    assert cfg.plan_settings().payback_max_seconds == 7200.0
    assert cfg.predict_settings().deadline_seconds == cfg.act_settings().deadline_seconds == 1200.0
    assert (cfg.observe_settings().sample_seconds, cfg.observe_settings().probe_interval_seconds) == (5.0, 15.0)


def test_human_units_and_base_units() -> None:
    cfg = config.parse(
        """
[[hosts]]
name = "h1"
uri = "qemu:///system"
memory = "64 GiB"
reserved_memory = 1073741824
link = "10 Gbit/s"
mode = "no_inbound"
storage_domains = ["/srv/nfs", "ceph"]

[guard]
cooldown = "1h30m"
quarantine = "5 min"
blocked_pair_seconds = 60
timezone = "Europe/Berlin"
windows = [ { start = "22:00", end = "05:00", days = ["mon", "Friday", 6], name = "night" } ]

[[guard.blackouts]]
start = "01:00"
end = "02:00"
"""
    )
    (host,) = cfg.host_settings()
    guard = cfg.guard_settings()

    assert host.memory_bytes == 64 * 2**30
    assert host.reserved_memory_bytes == 2**30
    assert host.link_bytes_per_second == 1.25e9
    assert host.mode is HostMode.NO_INBOUND
    assert host.storage_domains == {"/srv/nfs", "ceph"}
    assert (guard.cooldown_seconds, guard.quarantine_seconds, guard.blocked_pair_seconds) == (5400.0, 300.0, 60.0)
    assert guard.windows == (Window(start="22:00", end="05:00", days=(0, 4, 6), name="night"),)
    assert guard.blackouts == (Window(start="01:00", end="02:00"),)


def test_rules_become_policies() -> None:
    cfg = config.parse(
        HOSTS + "[[rules]]\nname='db-*'\nmode='guarded'\npin=['h1']\nanti_affinity=['db']\npriority=5\n"
        "max_downtime='300 ms'\n[[rules]]\nname='pcmk-*'\nowner='pacemaker'\n"
    )
    first, second = cfg.observe_settings().rules

    assert first.policy == VmPolicy(
        mode=Mode.GUARDED,
        pin=frozenset({"h1"}),
        anti_affinity=frozenset({"db"}),
        priority=5,
        max_downtime_seconds=0.3,
    )
    assert second == PolicyRule(name="pcmk-*", owner="pacemaker")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("moode = 'auto'\n" + HOSTS, "line 1: moode: unknown key (did you mean mode or models?)"),
        ("mode = 'autoo'\n" + HOSTS, "line 1: mode: Input should be"),
        (HOSTS + "[plan]\n\ncpu_hedroom = 0.5\n", "line 11: plan.cpu_hedroom: unknown key (did you mean cpu_headroom"),
        (HOSTS + "[guard]\ncooldwn = 5\n", "guard.cooldwn: unknown key (did you mean cooldown"),
        (HOSTS + "[gaurd]\n", "line 9: gaurd: unknown key (did you mean guard?)"),
        (HOSTS + "memroy = '1 GiB'\n", "line 9: hosts[1].memroy: unknown key (did you mean memory?)"),
        ("", "hosts: is required"),
        ("hosts = []", "line 1: hosts: at least one is needed"),
        ("[[hosts]]\nname='a'\n", "line 1: hosts[0].uri: is required"),
        (HOSTS + "[guard]\ncooldown = 'soon'\n", "'soon' is not a duration; write 90"),
        (HOSTS + "[guard]\ncooldown = -1\n", "guard.cooldown: a duration is finite and not negative"),
        (HOSTS + "[guard]\ncooldown = inf\n", "guard.cooldown: a duration is finite"),
        (HOSTS + "[guard]\ncooldown = true\n", "guard.cooldown: not a duration"),
        (HOSTS + "[guard]\nper_hour = true\n", "guard.per_hour: Input should be a valid integer"),
        (HOSTS + "[guard]\nper_hour = 2.5\n", "guard.per_hour: Input should be a valid integer"),
        (HOSTS + "[plan]\nquantile = nan\n", "plan.quantile: Input should be a finite number"),
        (HOSTS + "[plan]\nquantile = 1\n", "plan.quantile: Input should be less than 1"),
        (HOSTS + "memory = '64 GB/s'\n", "hosts[1].memory: '64 GB/s' is not a size"),
        (HOSTS + "hugepages = 5\n", "hosts[1].hugepages: not a table of page sizes and counts"),
        (HOSTS + "hugepages = { '2 Mi' = 5 }\n", "hosts[1].hugepages: '2 Mi' is not a size"),
        (HOSTS + "hugepages = { '1 B' = 5 }\n", "hosts[1].hugepages: '1 B' is no page size"),
        (HOSTS + "hugepages = { '2 MiB' = -5 }\n", "hosts[1].hugepages: '-5' is no count of pages"),
        (HOSTS + "hugepages = { '2 MiB' = 5, '2048 KiB' = 5 }\n", "'2048 KiB' is no page size, or is given twice"),
        (HOSTS + "memory_overcommit = 0\n", "hosts[1].memory_overcommit: Input should be greater than 0"),
        (HOSTS + "[plan]\nfailure_domain_link = 5\n", "plan.failure_domain_link: not a table of names and rates"),
        (HOSTS + "[plan]\nfailure_domain_link = { r1 = 0 }\n", "the rate of 'r1' is not above 0"),
        (HOSTS + "link = 0\n", "hosts[1].link: Input should be greater than 0"),
        (HOSTS + "[guard]\ncooldown = 5\ncooldown_seconds = 6\n", "guard.cooldown_seconds: unknown key"),
        ("mode = \n", "is not TOML: Invalid value (at line 1"),
    ],
)
def test_wrong_values_are_told_with_key_line_and_hint(text: str, expected: str) -> None:
    assert expected in told(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (HOSTS + HOSTS, "hosts[2].name: the name 'h1' is that of hosts[0] already"),
        (HOSTS.replace('"h2"', '"h1"'), "line 7: hosts[1].name: the name 'h1' is that of hosts[0] already"),
        (
            HOSTS.replace("qemu+unix:///system?socket=/run/h2/libvirt-sock", "qemu+ssh://h1/system"),
            "is the URI of 'h1' already",
        ),
        (HOSTS.replace("qemu+ssh", "qemu+sssh"), "line 4: hosts[0].uri: unknown URI scheme 'qemu+sssh'"),
        (HOSTS.replace("qemu+ssh", "xen+ssh"), "unknown URI scheme 'xen+ssh'"),
        (HOSTS.replace("qemu+ssh://h1/system", "qemu+ssh:///system"), "names no host"),
        (HOSTS.replace("ssh://h1", "ssh://u:pw@h1"), "hosts[0].uri: a URL in the configuration holds no password"),
        (HOSTS + "peer_uri = 'http://x'\n", "hosts[1].peer_uri: unknown URI scheme"),
        (HOSTS + "migration_uri = 'h2:49152'\n", "hosts[1].migration_uri: 'h2:49152' is not tcp://ADDRESS"),
        (HOSTS + "agent_url = 'ftp://h2'\n", "hosts[1].agent_url: 'ftp://h2' is not http"),
        (HOSTS + "agent_url = 'http://u:pw@h2/metrics'\n", "holds no password"),
        (HOSTS + "cores = 4.0\nreserved_cores = 4.0\n", "nothing is left of 4 cores"),
        (HOSTS + "idle_watts = 300.0\nmax_watts = 200.0\n", "300 W idle is more than 200 W when busy"),
        (HOSTS + "[[rules]]\nname='x'\npin=['h22']\n", "rules[0].pin: there is no host 'h22' (did you mean h2?)"),
        (HOSTS + "[[rules]]\nname='x'\navoid=['zzz']\n", "there is no host 'zzz' (hosts: h1, h2)"),
        (HOSTS + "[[rules]]\nname='x'\nprefer=['h3']\n", "rules[0].prefer: there is no host 'h3'"),
        (
            HOSTS + "failure_domain = 'rack1'\n[plan]\nfailure_domain_link = { rack2 = '1 Gbit/s' }\n",
            "plan.failure_domain_link: no host is in the failure domain 'rack2' (did you mean rack1?)",
        ),
        (
            HOSTS + "[guard]\ntimezone = 'Europe/Berln'\n",
            "line 10: guard.timezone: time zone 'Europe/Berln' is not known",
        ),
        (HOSTS + "[guard]\ntimezone = '../../etc/passwd'\n", "guard.timezone"),
        (HOSTS + "[[guard.windows]]\nstart='1:00'\nend='24:01'\n", "guard.windows[0].start: not a time of day: '1:00'"),
        (HOSTS + "[[guard.blackouts]]\nstart='01:00'\nend='24:01'\n", "guard.blackouts[0].end: not a time of day"),
        (
            HOSTS + "[[guard.windows]]\nstart='01:00'\nend='02:00'\ndays=['someday']\n",
            "guard.windows[0].days[0]: a day is",
        ),
        ("state_dir = 'here'\n" + HOSTS, "state_dir: 'here' is not an absolute path"),
        (
            HOSTS + "[ledger]\nurl = 'postgresql://u:pw@h/x'\n",
            "ledger.url: a URL in the configuration holds no password",
        ),
        (
            HOSTS + "[ledger]\nurl = 'sqlite:///relative'\n",
            "ledger.url: 'sqlite:///relative' is neither sqlite:////ABSOLUTE/PATH nor postgresql://",
        ),
        (
            HOSTS + "[ledger]\nurl = 'postgresql://h/x?password=pw'\n",
            "ledger.url: a URL in the configuration holds no password",
        ),
        (
            HOSTS + "[ledger]\nurl = 'postgresql://h/x?options=-cfsync'\n",
            "ledger.url: does not know options; allowed are",
        ),
        (HOSTS + "[ledger]\nurl = 'postgresql://h'\n", "ledger.url: names no database"),
        (HOSTS + "[ledger]\nurl = 'postgresql+pg8000://h/x'\n", "ledger.url: postgresql+pg8000 is not supported"),
        (
            HOSTS + "[ledger]\npassword_file = '/p'\n",
            "ledger.password_file: only a ledger on PostgreSQL has a password",
        ),
        (
            HOSTS + "[ledger]\nurl = 'postgresql://h/x'\npassword_file = 'a/p'\n",
            "ledger.password_file: 'a/p' is not an absolute path",
        ),
        ("ledger = 'sqlite:////x'\n" + HOSTS, "ledger: is a table: write [ledger]"),
        (HOSTS + f"[serve]\nsocket = '/{'x' * 120}'\n", "too long for a UNIX socket"),
        (HOSTS + "[serve]\nmetrics_listen = 'localhost'\n", "serve.metrics_listen: 'localhost' is not ADDRESS:PORT"),
        (HOSTS + "[observe]\nstale_after = 5\n", "observe.stale_after: 5 s is less than ticks.sample, 10 s"),
        (HOSTS + '[predict]\nstep = "5 s"\nhorizon = "60 s"\n', "predict.step: 5 s is less than ticks.sample, 10 s"),
        (HOSTS + "[guard]\ncooldown = '2 d'\n", "guard.cooldown_max: 86400 s is less than guard.cooldown"),
    ],
)
def test_what_does_not_fit_together_is_told(text: str, expected: str) -> None:
    assert expected in told(text)


def test_every_problem_is_told_at_once() -> None:
    message = told(
        "mode = 'x'\nzzz = 1\n" + HOSTS.replace('uri = "qemu+ssh://h1/system"', "") + "[guard]\nper_hour = 'no'\n"
    )

    assert [line.split(": ")[2] for line in message.splitlines()] == ["mode", "zzz", "hosts[0].uri", "guard.per_hour"]


@pytest.mark.parametrize(
    ("key", "section", "value"),
    [
        ("plan.cpu_headroom", "plan", "cpu_headroom = 0"),
        ("plan.cpu_headroom", "plan", "cpu_headroom = 1.2"),
        ("plan.memory_headroom", "plan", "memory_headroom = 1.01"),
        ("guard.cooldown", "guard", "cooldown = 0"),
        ("guard.hold_rounds", "guard", "hold_rounds = 0"),
        ("guard.out_per_host", "guard", "out_per_host = 0"),
        ("guard.in_per_host", "guard", "in_per_host = 3"),
        ("guard.per_cluster", "guard", "per_cluster = 3"),
        ("guard.per_hour", "guard", "per_hour = 0"),
    ],
)
def test_dangerous_settings_need_a_signature(key: str, section: str, value: str) -> None:
    text = HOSTS + f"[{section}]\n{value}\n"

    message = told(text)

    assert f"line 10: {key}: " in message
    assert f'(if it is meant: i_accept_the_risk = ["{key}"])' in message
    other = next(name for name in RISKS if name != key)
    assert key in told(f'i_accept_the_risk = ["{other}"]\n' + text), "the signature names the setting"
    assert config.parse(f'i_accept_the_risk = ["{key}"]\n' + text) is not None


def test_a_signature_for_nothing_known_is_told() -> None:
    assert "did you mean guard.cooldown" in told('i_accept_the_risk = ["guard.cooldwn"]\n' + HOSTS)


@pytest.mark.parametrize(
    "key", ["password", "bmc_token", "API_KEY", "Secret", "private_key", "passphrase", "credentials"]
)
def test_secrets_are_not_written_into_the_file(key: str) -> None:
    """Neither at the top nor deep inside; the value is not repeated in the message."""
    for text in (
        f"{key} = 'hunter2'\n" + HOSTS,
        HOSTS + f"{key} = 'hunter2'\n",
        HOSTS + f"[power.x]\n{key} = 'hunter2'\n",
    ):
        message = told(text)
        assert "only the path of a file" in message
        assert "hunter2" not in message


def test_names_from_the_file_cannot_steer_a_terminal() -> None:
    message = told('"x\\u001b[31m\\n" = 1\n' + HOSTS + '[[rules]]\nname="x"\npin=["\\u001b]0;x\\u0007"]\n')

    assert all(line.isprintable() for line in message.splitlines())


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"\xff\xfe", "line 1: is not UTF-8 text"),
        (b"a = 1\nb = '\xff'", "line 2: is not UTF-8 text"),
        (b"x = " + b"[" * 5000, "nested too deeply"),
        (b"x = " + b"9" * 5000, "is not TOML"),
        (b"# " + b"x" * (5 * 2**20), "is larger than"),
    ],
)
def test_files_that_are_no_configuration(tmp_path: Path, content: bytes, expected: str) -> None:
    file = tmp_path / "x.toml"
    file.write_bytes(content)

    with pytest.raises(ConfigError, match=expected):
        config.load(file)


def test_a_missing_file_and_a_directory(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot be read: No such file .*config generate"):
        config.load(tmp_path / "none.toml")
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        config.load(tmp_path)
    with pytest.raises(ConfigError, match="null byte"):
        config.load("\0")


def test_reload_keeps_the_old_one_when_the_new_one_is_wrong(tmp_path: Path) -> None:
    file = tmp_path / "x.toml"
    file.write_text(HOSTS)
    old = config.load(file)
    file.write_text("mode = 'guarded'\n" + HOSTS)
    fresh, error = config.reload(file, old)
    assert (fresh.mode, error) == (Mode.GUARDED, None)

    file.write_text("mode = 'nonsense'\n" + HOSTS)
    kept, error = config.reload(file, fresh)

    assert kept is fresh
    assert "mode" in error
    file.unlink()
    assert config.reload(file, fresh)[0] is fresh


def test_a_loaded_configuration_does_not_change() -> None:
    from pydantic import ValidationError

    cfg = config.parse(HOSTS)
    with pytest.raises(ValidationError):
        cfg.mode = Mode.AUTO


@pytest.mark.parametrize("train", ["", "17 3 * * *", "*/30 1-4 * * sun", "0 0 1 1 mon-fri"])
def test_a_schedule_of_training(train: str) -> None:
    assert config.parse(HOSTS + f'[models]\ntrain = "{train}"\n').model_settings().train == train


@pytest.mark.parametrize(
    ("setting", "part"),
    [
        ('train = "nightly"', "models.train: 'nightly' is no schedule"),
        ('train = "61 3 * * *"', "is no schedule"),
        ('train = "17 3 * *"', "is no schedule"),
        ('train = "17 3 * * 0"', "days of the week are written by name"),
        ('cost = "guessed"', "models.cost"),
        ("own_rows_min = 3", "models.own_rows_min"),
        ("drift_rows = 10\ndrift_rows_min = 20", "10 is less than models.drift_rows_min, 20"),
    ],
)
def test_settings_of_models_that_make_no_sense(setting: str, part: str) -> None:
    assert part in told(HOSTS + f"[models]\n{setting}\n")


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ('start = "dusk"\nend = "0 6 * * *"', "guard.policy_windows[0].start: 'dusk' is no schedule"),
        ('start = "0 20 * * *"\nend = "0 6 30 feb *"', "does not end within 7 days"),
        ('start = "0 20 * * *"\nend = "0 21 * * *"\nunfold = "1 h"', "guard.policy_windows[0].unfold"),
    ],
)
def test_a_policy_window_that_cannot_be_is_named(lines: str, message: str) -> None:
    assert message in told(f"{HOSTS}\n[[guard.policy_windows]]\n{lines}\n")


def test_tables_of_huge_pages_and_uplinks_are_read_and_written() -> None:
    host = "failure_domain = 'rack 1'\nmode = 'maintenance'\nhugepages = { '1 GiB' = 16, '2 MiB' = 512 }\n"
    cfg = config.parse(HOSTS + host + "[plan]\nfailure_domain_link = { 'rack 1' = '40 Gbit/s' }\n")

    assert cfg.host_settings()[1].hugepages == (
        HugePages(size_bytes=2 * MIB, total=512),
        HugePages(size_bytes=GIB, total=16),
    )
    assert cfg.host_settings()[1].mode is HostMode.DRAIN
    assert cfg.plan_settings().failure_domain_link_bytes_per_second == (("rack 1", 5e9),)
    again = config.parse(effective(cfg))
    assert (again.host_settings(), again.plan_settings()) == (cfg.host_settings(), cfg.plan_settings())
