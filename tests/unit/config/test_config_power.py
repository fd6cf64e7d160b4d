"""Host power in the configuration: every way that could not work, or would switch two hosts, is an error that names it."""

import pytest

from rebalancerd import config
from rebalancerd.config import ConfigError

HOSTS = """
[[hosts]]
name = "a"
uri = "qemu+tls://a/system"
{a}
[[hosts]]
name = "b"
uri = "qemu+tls://b/system"
{b}
"""
REDFISH = """[hosts.power]
kind = "redfish"
address = "https://bmc-{0}"
username_file = "/etc/rebalancerd/user"
password_file = "bmc-password"
"""


def parsed(a: str = "", b: str = "", rest: str = "") -> config.Config:
    return config.parse(HOSTS.format(a=a, b=b) + rest)


def test_hosts_have_their_own_way_or_none() -> None:
    cfg = parsed(REDFISH.format("a"))
    assert set(cfg.host_power()) == {"a"}
    assert cfg.host_power()["a"].tls_verify
    assert len(cfg.host_settings()) == 2
    assert config.parse(config.effective(cfg)) == cfg
    assert "bmc-password" in config.effective(cfg), "the name of the file, not what is in it"


def test_two_hosts_with_one_controller_are_refused_by_name() -> None:
    with pytest.raises(ConfigError, match="switch of 'a' as well") as told:
        parsed(REDFISH.format("a"), REDFISH.format("a"))
    assert "hosts[1].power.address" in str(told.value)
    one = REDFISH.format("a") + 'system = "/redfish/v1/Systems/1"\n'
    other = REDFISH.format("a") + 'system = "/redfish/v1/Systems/2"\n'
    assert len(parsed(one, other).host_power()) == 2


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ('kind = "redfish"', "address: is required"),
        ('kind = "ipmi"\naddress = "bmc"', "username_file: is required"),
        ('kind = "wake_on_lan"\nmac = "52:54:00:00:00:01"', "off_command: is required"),
        ('kind = "command"\non_command = ["/bin/true"]', "off_command: is required"),
        ('kind = "command"\non_command = ["true"]\noff_command = ["/bin/true"]', "absolute path of a program"),
        ('kind = "wake_on_lan"\nmac = "nonsense"\noff_command = ["/bin/true"]', "hardware address"),
        (REDFISH.removeprefix("[hosts.power]\n").replace("https", "http"), "to the network"),
        (REDFISH.removeprefix("[hosts.power]\n").replace("bmc-{0}", "me:pw@bmc"), "holds no password"),
        (REDFISH.removeprefix("[hosts.power]\n").replace("bmc-{0}", "me@bmc"), "no name and no password"),
        (REDFISH.removeprefix("[hosts.power]\n").replace("bmc-{0}", "bmc/redfish"), "is not https"),
        (REDFISH.removeprefix("[hosts.power]\n").replace("bmc-password", "etc/pw"), "systemd credential"),
        ('kind = "ipmi"\naddress = "bmc"\npassword = "x"', "secrets are not written"),
        ('kind = "telnet"', "kind"),
    ],
)
def test_a_way_that_could_not_work_is_an_error(table: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        parsed(f"[hosts.power]\n{table}\n")


def test_limits_have_units() -> None:
    cfg = parsed(rest='[power]\nwake_deadline = "20 min"\nhosts_on_min = 3\n')
    assert cfg.power_settings().wake_deadline_seconds == 1200
    assert cfg.power_limits().hosts_on_min == 3
