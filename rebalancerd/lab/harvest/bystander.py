"""CPU load on a host beside its guests: a process of the host that works for a share of each tenth of a second."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from rebalancerd.lab.lab import Lab

_PROGRAM = """
import sys, time
share = float(sys.argv[1])
while True:
    until = time.perf_counter() + 0.1 * share
    while time.perf_counter() < until:
        pass
    time.sleep(0.1 * (1 - share))
"""


@contextmanager
def bystanders(lab: Lab, cores: dict[str, float]) -> Iterator[None]:
    """Keep those hosts busy with so many cores (0 to 1 each) for as long as the context lasts.

    Raises:
        LabError: a host is not up.
    """
    with ExitStack() as stack:
        for host, share in cores.items():
            if share > 0:
                command = lab.command_on(host, sys.executable, "-I", "-S", "-c", _PROGRAM, f"{min(1.0, share):g}")
                process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
                stack.callback(_end, process)
        yield


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
