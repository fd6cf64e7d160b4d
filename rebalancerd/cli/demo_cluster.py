"""The demonstration's cluster: three lab hosts, six guests, and the configuration of the daemon that watches them."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from rebalancerd.lab import GuestSpec, LabSpec, Phase

if TYPE_CHECKING:
    from rebalancerd.lab import Lab

DEMO_DIR = Path("/var/tmp/rebalancerd-demo")  # noqa: S108 - made by root with mode 0700 before anything is put in it
LINK_MBIT = 1000
CALM = (Phase(seconds=3600, cpu_percent=4, working_set_mib=16, dirty_mib_per_second=1),)
# emulation adds about 0.08 cores to each guest: together more than h1 has, each small enough to fit elsewhere
HOT = {
    "web1": (Phase(seconds=3600, cpu_percent=15, working_set_mib=24, dirty_mib_per_second=4),),
    "web2": (Phase(seconds=3600, cpu_percent=14, working_set_mib=24, dirty_mib_per_second=2),),
    "app1": (Phase(seconds=3600, cpu_percent=14, working_set_mib=24, dirty_mib_per_second=2),),
    "db1": (Phase(seconds=3600, cpu_percent=13, working_set_mib=32, dirty_mib_per_second=6),),
}
PLACES = {"web1": "h1", "web2": "h1", "app1": "h1", "db1": "h1", "mail1": "h2", "log1": "h3"}


def demo_lab_spec() -> LabSpec:
    """Three hosts of 0.8 cores; db1 has a writable network disk, web1 starts with its host."""
    guests = tuple(
        GuestSpec(
            name=name,
            host=host,
            phases=CALM,
            disk_mib=32 if name == "db1" else 0,
            autostart=name == "web1",
        )
        for name, host in PLACES.items()
    )
    return LabSpec(name="demo", hosts=3, guests=guests, subnet="10.78.0.0/24", cpu_quota_cores=0.8)


def config_text(lab: "Lab", directory: Path) -> str:
    """The daemon's configuration, as an operator would write it, with short ticks so that a person can watch."""
    lines = [
        'mode = "auto"',
        'controller = "demo"',
        f"state_dir = {_text(directory / 'state')}",
        f"pause_file = {_text(directory / 'pause')}",
        "",
        "[ticks]",
        'sample = "2 s"',
        'probe = "3 s"',
        'decide = "5 s"',
        "",
        "[observe]",
        'stale_after = "15 s"',
        "",
        "[guard]",
        "hold_rounds = 2",
        'cooldown = "10 min"',
        "",
        # One round is enough at this downtime, and QEMU before 9.0 loses pages in software emulation where it takes
        # several (docs/benchmarks.md).
        "[act]",
        'downtime_start = "600 ms"',
        "downtime_steps = 1",
        "",
        "[plan]",
        'max_downtime = "1 s"',
        "",
        "[log]",
        'level = "debug"',
        "",
        "[serve]",
        f"socket = {_text(directory / 'rebalancerd.sock')}",
        'metrics_listen = "127.0.0.1:9187"',
    ]
    for host in lab.hosts:
        lines += [
            "",
            "[[hosts]]",
            f"name = {_text(host.name)}",
            f"uri = {_text(host.uri)}",
            f"ro_socket = {_text(host.directory / 'run' / 'libvirt-sock-ro')}",
            f"peer_uri = {_text(host.peer_uri)}",
            f'migration_uri = "tcp://{host.migration_address}"',
            f"cores = {host.cpu_quota_cores}",
            f'link = "{LINK_MBIT} Mbit/s"',
        ]
    return "\n".join(lines) + "\n"


def _text(value: object) -> str:
    """A TOML string: JSON's escapes are TOML's."""
    return json.dumps(str(value))
