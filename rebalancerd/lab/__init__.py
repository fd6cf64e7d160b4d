"""A real cluster on one machine: several libvirt hosts with QEMU guests whose load is scheduled and that migrate live."""

from rebalancerd.lab.commands import LabError
from rebalancerd.lab.heartbeat import Heartbeat
from rebalancerd.lab.host import LabHost
from rebalancerd.lab.lab import Lab
from rebalancerd.lab.network import delay_available
from rebalancerd.lab.requirements import can_run, required_packages
from rebalancerd.lab.spec import GuestSpec, LabSpec, Phase
from rebalancerd.lab.status import GuestStatus, HostStatus, LabStatus

__all__ = [
    "GuestSpec",
    "GuestStatus",
    "Heartbeat",
    "HostStatus",
    "Lab",
    "LabError",
    "LabHost",
    "LabSpec",
    "LabStatus",
    "Phase",
    "can_run",
    "delay_available",
    "required_packages",
]
