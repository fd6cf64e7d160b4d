"""The host agent: psutil figures of the host it runs on, exported for Prometheus and for the daemon.

What libvirt does not tell: memory that is really available, swap, pressure stall information, network rates, the clock.
It answers GET requests with figures and does nothing else.
"""

import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from wsgiref.simple_server import WSGIServer

import psutil  # type: ignore[import-untyped]
import structlog
from prometheus_client import CollectorRegistry, make_wsgi_app
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from rebalancerd.observe.listening import TlsFiles, serve_wsgi

log = structlog.get_logger(__name__)

DEFAULT_LISTEN = "127.0.0.1:9178"
PREFIX = "rebalancerd_agent"
PRESSURE_DIR = Path("/proc/pressure")
NET_DIR = Path("/sys/class/net")
IDLE_MODES = frozenset({"idle", "iowait", "guest", "guest_nice"})  # guest time is also counted as user time
GUEST_SIDE = ("lo", "vnet", "tap", "virbr", "veth", "docker", "macvtap")


class HostCollector(Collector):
    """Reads the host anew at each scrape. A figure that cannot be read is left out, never exported as 0."""

    def __init__(self, pressure_dir: Path = PRESSURE_DIR, net_dir: Path = NET_DIR) -> None:
        self._pressure_dir = pressure_dir
        self._net_dir = net_dir

    def collect(self) -> Iterator[Metric]:
        """All metric families."""
        for part in (self._cpu, self._memory, self._pressure, self._network, self._identity):
            try:
                yield from part()
            except (OSError, ValueError, psutil.Error) as error:
                log.warning("agent_figure_missing", part=part.__name__.lstrip("_"), reason=str(error))

    def _cpu(self) -> Iterator[Metric]:
        times = psutil.cpu_times()._asdict()
        busy = sum(seconds for mode, seconds in times.items() if mode not in IDLE_MODES)
        yield CounterMetricFamily(f"{PREFIX}_cpu_busy_seconds", "CPU seconds that all CPUs together were busy.", busy)
        yield GaugeMetricFamily(f"{PREFIX}_cpus", "Logical CPUs.", psutil.cpu_count() or 0)

    def _memory(self) -> Iterator[Metric]:
        memory, swap = psutil.virtual_memory(), psutil.swap_memory()
        yield GaugeMetricFamily(f"{PREFIX}_memory_total_bytes", "Memory of the host.", memory.total)
        yield GaugeMetricFamily(
            f"{PREFIX}_memory_available_bytes", "Memory that can be had without swapping.", memory.available
        )
        yield GaugeMetricFamily(f"{PREFIX}_swap_used_bytes", "Swap in use.", swap.used)

    def _pressure(self) -> Iterator[Metric]:
        family = GaugeMetricFamily(
            f"{PREFIX}_pressure_share",
            "Share of the last 10 s in which some task waited for the resource, 0 to 1.",
            labels=["resource"],
        )
        for resource in ("cpu", "memory", "io"):
            path = self._pressure_dir / resource
            if path.exists():  # kernels without PSI have none of them
                family.add_metric([resource], read_pressure(path.read_text(encoding="ascii")))
        yield family

    def _network(self) -> Iterator[Metric]:
        family = CounterMetricFamily(
            f"{PREFIX}_network_bytes", "Bytes received and sent by an interface of the host.", labels=["interface"]
        )
        counters = psutil.net_io_counters(pernic=True)
        names = uplinks(sorted(counters), self._net_dir)
        for name in names:
            family.add_metric([name], counters[name].bytes_recv + counters[name].bytes_sent)
        yield family

    def _identity(self) -> Iterator[Metric]:
        yield GaugeMetricFamily(f"{PREFIX}_clock_seconds", "The host's clock, seconds since the epoch.", time.time())
        info = GaugeMetricFamily(f"{PREFIX}_info", "The host's own name.", labels=["hostname"])
        info.add_metric([socket.gethostname()], 1)
        yield info


def read_pressure(text: str) -> float:
    """``avg10`` of the "some" line of a file of /proc/pressure, as a share. Raises ValueError."""
    for line in text.splitlines():
        kind, *fields = line.split()
        if kind == "some":
            values = dict(field.split("=", 1) for field in fields)
            if "avg10" in values:
                return float(values["avg10"]) / 100
    raise ValueError(f"no 10 s average in {text[:80]!r}")


def uplinks(names: list[str], net_dir: Path = NET_DIR) -> list[str]:
    """Interfaces that carry the host's own traffic: those on a device; else all that are not a guest's, bridge or loopback.

    Counting a bridge or a guest's tap beside the card below it would count every byte twice.
    """
    on_device = [name for name in names if (net_dir / name / "device").exists()]
    if on_device:
        return on_device
    return [n for n in names if not n.startswith(GUEST_SIDE) and not (net_dir / n / "bridge").exists()]


class RunningAgent:
    """An agent that answers; ``address`` is where."""

    def __init__(self, server: WSGIServer, thread: threading.Thread) -> None:
        self._server, self._thread = server, thread
        host, port = server.server_address[0], server.server_address[1]
        self.address = f"{host!s}:{port}"

    def wait(self) -> None:
        """Until it is closed."""
        self._thread.join()

    def close(self) -> None:
        """Stop answering."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def split_listen(listen: str) -> tuple[str, int]:
    """ "HOST:PORT", "[IPV6]:PORT" or ":PORT" (loopback) as a pair. Raises ValueError."""
    host, separator, port = listen.rpartition(":")
    if not separator or not (port.isascii() and port.isdigit()) or int(port) > 65535:
        raise ValueError(f"listen address {listen!r} is not HOST:PORT")
    return host.strip("[]") or "127.0.0.1", int(port)


def _with_pages(figures: Any, pages: Mapping[str, Callable[[], bytes]]) -> Callable[[Any, Any], Iterable[bytes]]:
    """A WSGI application that serves ``pages`` and leaves the rest to ``figures``."""

    def answer(environ: Any, start_response: Any) -> Iterable[bytes]:
        page = pages.get(environ["PATH_INFO"])
        if page is None:
            found: Iterable[bytes] = figures(environ, start_response)
            return found
        if environ["REQUEST_METHOD"] != "GET":
            start_response("405 Method Not Allowed", [("Allow", "GET")])
            return [b""]
        body = page()
        start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
        return [body]

    return answer


def serve_agent(
    listen: str = DEFAULT_LISTEN,
    collectors: Sequence[Collector] = (),
    pages: Mapping[str, Callable[[], bytes]] | None = None,
    tls: TlsFiles | None = None,
) -> RunningAgent:
    """Answer on ``listen`` from a thread; port 0 takes a free one. Raises ValueError, OSError.

    ``collectors``: more to export. ``pages``: by path, what gives a JSON document; any other path shows the figures.
    Other addresses than this machine's own need ``tls``, which only answers clients with a certificate of its CA.
    """
    host, port = split_listen(listen)
    registry = CollectorRegistry()
    registry.register(HostCollector())
    for collector in collectors:
        registry.register(collector)
    app = make_wsgi_app(registry)
    server, thread = serve_wsgi(_with_pages(app, pages) if pages else app, host, port, tls)
    return RunningAgent(server, thread)
