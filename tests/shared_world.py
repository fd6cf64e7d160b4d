"""One simulated cluster for several controller processes: libvirt's part, in a process of its own, on the real clock.

``World`` runs a ``SimCluster`` behind a UNIX socket and notes every call to migrate; ``RemoteRead``, ``RemoteProbe`` and
``RemoteWrite`` are the ports of a controller in another process. What the world noted is the truth that tests judge by.
"""

import contextlib
import os
import signal
import threading
import time
from dataclasses import dataclass
from multiprocessing.connection import Client, Connection, Listener
from pathlib import Path
from typing import Any

from rebalancerd.cluster.migration import MigrationRecord
from rebalancerd.ports import HostError, HostRefusedError, HostUnreachableError
from rebalancerd.sim.adapters import SimHandle, SimProbe, SimRead, SimWrite, Wires
from rebalancerd.sim.cluster import SimCluster
from rebalancerd.sim.spec import ClusterSpec

KEY = b"world"


class RealClock:
    """ports.Clock of the world: the machine's own, but nothing in it sleeps (one lock serves all callers)."""

    def monotonic(self) -> float:
        return time.monotonic()

    def wall(self) -> float:
        return time.time()

    def sleep(self, _seconds: float) -> None:
        return None


@dataclass(frozen=True)
class Call:
    """One call to migrate as libvirt got it. ``at``: wall clock. The counts are of running jobs before it."""

    record: MigrationRecord
    at: float
    on_source: bool  # the VM ran there and had no job
    out: int
    into: int
    running: int


class World:
    """The server. ``serve`` answers until it is killed."""

    def __init__(self, spec: ClusterSpec, address: str) -> None:
        self.cluster = SimCluster(spec, RealClock())
        wires = Wires(self.cluster)
        self.ports = {"read": SimRead(wires), "probe": SimProbe(wires), "write": SimWrite(wires)}
        self.calls: list[Call] = []
        self.handles: dict[str, SimHandle] = {}
        self.lock = threading.Lock()
        self.listener = Listener(address, family="AF_UNIX", backlog=64, authkey=KEY)

    def serve(self) -> None:
        while True:
            with contextlib.suppress(OSError, EOFError):
                connection = self.listener.accept()
                threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: Connection) -> None:
        with contextlib.suppress(EOFError, OSError):
            while True:
                port, method, words = connection.recv()
                try:
                    with self.lock:
                        answer = ("ok", self._do(port, method, words))
                except HostError as error:
                    answer = ("error", _packed(error))
                connection.send(answer)

    def _do(self, port: str, method: str, words: tuple[Any, ...]) -> Any:
        if port == "world":
            self.cluster.advance()
            return getattr(self, method)(*words)
        if method == "migrate":
            return self._migrate(*words)
        return getattr(self.ports[port], method)(*words)

    def _migrate(self, record: MigrationRecord) -> str:
        self.cluster.advance()
        running = list(self.cluster.migrations.running.values())
        here = self.cluster.running_on(record.vm_uuid) == record.source
        self.calls.append(
            Call(
                record=record,
                at=time.time(),
                on_source=here and record.vm_uuid not in self.cluster.migrations.running,
                out=sum(m.source == record.source for m in running),
                into=sum(m.destination == record.destination for m in running),
                running=len(running),
            )
        )
        self.handles[record.id] = self.ports["write"].migrate(record)
        return record.id

    # asked by tests and handles

    def done(self, key: str) -> bool:
        return self.handles[key].done()

    def error(self, key: str) -> tuple[str, str, str, int] | None:
        found = self.handles[key].error()
        return None if found is None else _packed(found)

    def noted(self) -> list[Call]:
        return list(self.calls)

    def places(self) -> dict[str, tuple[str, ...]]:
        """Hosts that have a domain of each VM, in any state."""
        return {uuid: self.cluster.present_on(uuid) for uuid in self.cluster.vms}

    def moving(self) -> int:
        return len(self.cluster.migrations.running)


def _packed(error: HostError) -> tuple[str, str, str, int]:
    message = str(error).removeprefix(f"{error.host}: ")
    return type(error).__name__, error.host, message, getattr(error, "code", 0)


def _unpacked(kind: str, host: str, message: str, code: int) -> HostError:
    if kind == "HostUnreachableError":
        return HostUnreachableError(host, message)
    return HostRefusedError(host, message, code)


class Line:
    """A client's connections to the world, one per thread."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._local = threading.local()

    def ask(self, port: str, method: str, *words: Any) -> Any:
        if getattr(self._local, "connection", None) is None:
            self._local.connection = Client(self._address, family="AF_UNIX", authkey=KEY)
        self._local.connection.send((port, method, words))
        kind, answer = self._local.connection.recv()
        if kind == "error":
            raise _unpacked(*answer)
        return answer


class _Port:
    _name = ""

    def __init__(self, line: Line) -> None:
        self._line = line

    def __getattr__(self, method: str) -> Any:
        if method.startswith("_"):
            raise AttributeError(method)
        return lambda *words: self._line.ask(self._name, method, *words)

    def close(self) -> None:
        return None


class RemoteRead(_Port):
    _name = "read"

    def __init__(self, line: Line) -> None:
        super().__init__(line)
        self._hosts = tuple(line.ask("read", "hosts"))

    def hosts(self) -> tuple[str, ...]:
        return self._hosts


class RemoteProbe(_Port):
    _name = "probe"


class RemoteHandle:
    """ports.MigrationHandle of a call that the world keeps."""

    def __init__(self, line: Line, key: str) -> None:
        self._line, self._key = line, key

    def done(self) -> bool:
        return bool(self._line.ask("world", "done", self._key))

    def error(self) -> HostError | None:
        found = self._line.ask("world", "error", self._key)
        return None if found is None else _unpacked(*found)


class RemoteWrite(_Port):
    """``orders``: what is to befall this process right after its next call to migrate.

    ``checked_at`` is set by the executor's last look; how long before the call that was is left beside the orders.
    """

    _name = "write"

    def __init__(self, line: Line, orders: "Orders") -> None:
        super().__init__(line)
        self._orders = orders
        self.checked_at = time.monotonic()

    def migrate(self, record: MigrationRecord) -> RemoteHandle:
        window = time.monotonic() - self.checked_at
        with self._orders.path.with_suffix(".windows").open("a") as stream:
            stream.write(f"{window!r}\n")
        handle = RemoteHandle(self._line, self._line.ask("write", "migrate", record))
        self._orders.obey("call")
        return handle


class Orders:
    """A file in which a test orders a controller's death or freeze at a named point; it strikes once."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.struck = path.with_suffix(".struck")

    def give(self, number: int, point: str) -> None:
        """``number``: the signal. ``point``: "intent" (durable, libvirt not called yet) or "call" (libvirt called)."""
        self.struck.unlink(missing_ok=True)
        part = self.path.with_suffix(".part")
        part.write_text(f"{number} {point}")
        part.rename(self.path)

    def withdraw(self) -> None:
        self.path.unlink(missing_ok=True)

    def obey(self, point: str) -> None:
        """In the controller: strike if this is the point. The instant is left behind, on the monotonic clock."""
        try:
            number, wanted = self.path.read_text().split()
        except (OSError, ValueError):
            return
        if wanted != point:
            return
        self.path.unlink(missing_ok=True)
        part = self.struck.with_suffix(".now")
        part.write_text(repr(time.monotonic()))
        part.rename(self.struck)
        os.kill(os.getpid(), signal.Signals(int(number)))
        time.sleep(0.2)  # another thread may take the signal: this one must not run on until all are stopped
