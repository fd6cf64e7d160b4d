"""Runs inside the booted image, as root, from a unit of its own: do the hardened units really run what they are for?

Prints a line ``RESULT name ok|FAILED detail`` for each question on the console, then powers the machine off.
"""

import json
import subprocess
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

CONSOLE = "/dev/ttyS0"
TELL_SECONDS = 30.0
PATIENCE_SECONDS = 900.0  # software emulation on a busy machine
UNITS = ("rebalancerd.service", "rebalancerd-agent.service", "rebalancerd-train.service")
STATUS = ("rebalancerd", "status", "--output", "json")


def run(*argv: str) -> str:
    """What a command prints. Raises RuntimeError with its errors."""
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=PATIENCE_SECONDS)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(argv)}: exit code {done.returncode}: {(done.stderr or done.stdout)[-300:]}")
    return done.stdout.strip()


def until(question: Callable[[], str]) -> str:
    """The first answer, asked again and again. Raises the last error at the end."""
    now = time.monotonic()
    end, tell = now + PATIENCE_SECONDS, now + TELL_SECONDS
    while True:
        try:
            return question()
        except (RuntimeError, OSError, ValueError, KeyError) as error:
            now = time.monotonic()
            if now > end:
                raise RuntimeError(str(error)) from None
            if now > tell:
                tell = now + TELL_SECONDS
                say(f"WAITING {error} | {run('journalctl', '-q', '-n', '4', '-o', 'cat', '-u', 'rebalancerd*')[-600:]}")
            time.sleep(3.0)


def say(line: str) -> None:
    """A line on the console."""
    with Path(CONSOLE).open("w") as console:
        print("\r\n" + line.replace("\n", " | "), file=console, flush=True)


def daemon() -> str:
    """It is ready, as its own user, answers its socket, and reads the libvirtd beside it by polkit's leave."""

    def answered() -> str:
        told = json.loads(run(*STATUS))
        hosts = {host["name"]: host for host in told["hosts"]}
        if not told.get("cycle") or hosts["here"].get("unusable"):
            raise RuntimeError(f"not yet: {json.dumps(told)[:300]}")
        return f"cycle {told['cycle'] if not isinstance(told['cycle'], dict) else told['cycle'].get('id')}"

    said = until(answered)
    pid = run("systemctl", "show", "--property=MainPID", "--value", "rebalancerd.service")
    user = run("ps", "-o", "user=", "-p", pid)
    if user.strip() == "root":
        raise RuntimeError("it runs as root")
    return f"{said}, as {user.strip()}, {run('systemctl', 'is-active', 'rebalancerd.service')}"


def agent() -> str:
    """It gives figures on loopback."""

    def page() -> str:
        with urllib.request.urlopen("http://127.0.0.1:9178/metrics", timeout=30) as answer:
            return str(answer.read().decode())

    text = until(page)
    wanted = (
        "cpu_busy_seconds_total",
        "memory_available_bytes",
        "pressure_share",
        "network_bytes_total",
        "clock_seconds",
    )
    missing = [name for name in wanted if f"rebalancerd_agent_{name}" not in text]
    if missing:
        raise RuntimeError(f"no figures: {', '.join(missing)}")
    return f"{len(text.splitlines())} lines"


def trainer() -> str:
    """The daemon's request starts it by the path unit; it ends well and takes the request away."""
    request = Path("/var/lib/rebalancerd/models/train.request")
    run(
        "runuser",
        "-u",
        "rebalancerd",
        "--",
        "sh",
        "-c",
        f"umask 077; mkdir -p {request.parent}; : >{request}",
    )

    def ended() -> str:
        shown = run("systemctl", "show", "--property=ExecMainExitTimestampMonotonic,Result,ExecMainStatus", UNITS[2])
        told = dict(line.split("=", 1) for line in shown.splitlines())
        if told["ExecMainExitTimestampMonotonic"] in ("", "0") or request.exists():
            raise RuntimeError(f"not yet: {shown}")
        return f"{told['Result']}, exit code {told['ExecMainStatus']}"

    said = until(ended)
    if not said.startswith("success"):
        raise RuntimeError(said + ": " + run("journalctl", "-q", "-n", "5", "-o", "cat", "-u", UNITS[2]))
    return said


def stop() -> str:
    """SIGTERM ends the daemon well within its time, and it starts again."""
    run("systemctl", "stop", "rebalancerd.service")
    result = run("systemctl", "show", "--property=Result", "--value", "rebalancerd.service")
    if result != "success":
        raise RuntimeError(result)
    run("systemctl", "start", "rebalancerd.service")
    return f"{result}, {run('systemctl', 'is-active', 'rebalancerd.service')}"


def exposure() -> str:
    """As systemd counts it on the loaded units."""
    run("systemd-analyze", "security", "--no-pager", "--threshold=15", *UNITS)
    return "at most 1.5 each"


def denied() -> str:
    """No call that the filters forbid was made, and the daemon can do nothing that they forbid."""
    told = run("journalctl", "-q", "-k", "-o", "cat", "-b")
    killed = [line for line in told.splitlines() if "type=1326" in line or "audit: seccomp" in line.lower()]
    if killed:
        raise RuntimeError(killed[0])
    pid = run("systemctl", "show", "--property=MainPID", "--value", "rebalancerd.service")
    with Path(f"/proc/{pid}/status").open() as stream:
        status = dict(line.split(":\t", 1) for line in stream.read().splitlines() if ":\t" in line)
    found = (status["Seccomp"].strip(), status["NoNewPrivs"].strip(), int(status["CapBnd"], 16))
    if found != ("2", "1", 0):
        raise RuntimeError(f"seccomp, no new privileges, capabilities: {found}")
    return "nothing was denied; filter on, no capabilities"


def main() -> None:
    """Ask everything, whatever the answers."""
    for question in (daemon, agent, trainer, stop, exposure, denied):
        try:
            say(f"RESULT {question.__name__} ok {question()}")
        except Exception as error:  # noqa: BLE001 - each is told
            say(f"RESULT {question.__name__} FAILED {error}")
    say("RESULT end ok")
    subprocess.run(["systemctl", "poweroff", "--force"], check=False)


if __name__ == "__main__":
    main()
