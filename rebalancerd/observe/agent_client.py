"""HttpAgents: asks the hosts' agents for their figures. What is absurd or missing is None."""

import math
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from urllib.parse import urljoin, urlsplit

import httpx
import structlog
from prometheus_client.parser import text_string_to_metric_families

from rebalancerd.cluster.sample import AgentCurve, AgentSample
from rebalancerd.observe.agent import PREFIX
from rebalancerd.observe.agent_curves import parse_curves
from rebalancerd.observe.listening import TlsFiles
from rebalancerd.ports import Clock

log = structlog.get_logger(__name__)

MOST_CHARACTERS = 1_000_000
MOST_CURVE_BYTES = 2_000_000  # of 2048 VMs
CURVES_FIGURE = (f"{PREFIX}_dirty_curves", "")
SHORTEST_SECONDS, LONGEST_SECONDS = 0.5, 120.0
MOST_BYTES_PER_SECOND = 1e12
MOST_CPUS = 65536
MOST_WATTS = 20_000.0
RAPL_HINT = "its agent may not read the energy counters: root only since CVE-2020-8694"
Figures = dict[tuple[str, str], float]


@dataclass(frozen=True, slots=True)
class _Counters:
    """Counters of a scrape; ``at`` on the monotonic clock of ours."""

    at: float
    busy_seconds: float | None
    network_bytes: dict[str, float]
    package_joules: float | None = None


class HttpAgents:
    """ports.Agents over HTTP. ``urls``: by host, "http://HOST:PORT" with or without a path. Thread-safe."""

    def __init__(
        self,
        urls: Mapping[str, str],
        timeout: float = 2.0,
        *,
        clock: Clock | None = None,
        tls: TlsFiles | None = None,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        """``clock`` measures the time between scrapes (default: the system's); ``tls``: what https:// agents are shown.

        Raises ValueError for a URL that is none, and for certificates that cannot be used.
        """
        self._urls = {host: _metrics_url(host, url) for host, url in urls.items()}
        self._monotonic: Callable[[], float] = time.monotonic if clock is None else clock.monotonic
        # no proxies from the environment, no redirects: an agent answers itself or not at all
        self._client = httpx.Client(
            timeout=timeout,
            trust_env=False,
            follow_redirects=False,
            verify=True if tls is None else tls.for_client(),
            transport=transport,
            headers={"Accept-Encoding": "identity"},
        )
        self._timeout = timeout
        self._lock = threading.Lock()
        self._last: dict[str, _Counters] = {}
        self._silent: set[str] = set()
        self._without_curves: set[str] = set()

    def read(self, host: str) -> AgentSample | None:
        """The agent's figures; None if the host names no agent or it does not answer."""
        url = self._urls.get(host)
        if url is None:
            return None
        deadline = time.monotonic() + self._timeout  # for both answers: they must not make their host late
        try:
            figures = parse_figures(self._fetch(url, MOST_CHARACTERS, deadline).decode("utf-8", "replace"))
        except (httpx.HTTPError, ValueError) as error:
            with self._lock:
                first = host not in self._silent
                self._silent.add(host)
                self._last.pop(host, None)
            if first:
                log.warning("agent_silent", host=host, reason=f"{type(error).__name__}: {error}")
            return None
        curves, fault = self._curves(url, deadline) if CURVES_FIGURE in figures else ((), None)
        with self._lock:
            first = fault is not None and host not in self._without_curves
            (self._without_curves.discard if fault is None else self._without_curves.add)(host)
        if first:
            log.warning("agent_curves_refused", host=host, reason=fault)
        with self._lock:
            self._silent.discard(host)
            sample = self._sample(host, figures, self._monotonic())
        return replace(sample, curves=curves, curves_fault=fault)

    def close(self) -> None:
        """Close all connections."""
        self._client.close()

    def _curves(self, url: str, deadline: float) -> tuple[tuple[AgentCurve, ...], str | None]:
        """Of an agent that says it has them: its curves, or why they cannot be used."""
        try:
            return parse_curves(self._fetch(urljoin(url, "dirty"), MOST_CURVE_BYTES, deadline)), None
        except httpx.HTTPError as error:
            return (), type(error).__name__
        except ValueError as error:
            return (), str(error)

    def _fetch(self, url: str, most_bytes: int, deadline: float) -> bytes:
        left = max(0.01, deadline - time.monotonic())
        with self._client.stream("GET", url, timeout=left) as response:
            response.raise_for_status()
            if response.headers.get("Content-Encoding", "identity") != "identity":
                raise ValueError("answer is packed")  # what it unpacks to may be of any size
            body = bytearray()
            for chunk in response.iter_bytes():
                body += chunk
                if len(body) > most_bytes:
                    raise ValueError(f"answer is longer than {most_bytes} bytes")
                if time.monotonic() > deadline:
                    raise ValueError(f"answer took longer than {self._timeout:g} s")
        return bytes(body)

    def _sample(self, host: str, figures: Figures, now: float) -> AgentSample:
        def gauge(name: str, label: str = "", most: float = 2.0**60) -> float | None:
            return _within(figures.get((f"{PREFIX}_{name}", label)), most)

        counters = _Counters(
            at=now,
            busy_seconds=gauge("cpu_busy_seconds_total"),
            network_bytes={
                label: value for (n, label), value in figures.items() if n == f"{PREFIX}_network_bytes_total"
            },
            package_joules=gauge("package_joules_total"),
        )
        before = self._last.get(host)
        self._last[host] = counters
        cpus = gauge("cpus", most=MOST_CPUS) or MOST_CPUS
        total, available = gauge("memory_total_bytes"), gauge("memory_available_bytes")
        swap = gauge("swap_used_bytes")
        known = available is not None and total is not None and available <= total
        return AgentSample(
            host=host,
            cpu_cores=_rate(before, counters, _busy, cpus * 1.1),
            memory_available_bytes=int(available) if known and available is not None else None,
            swap_used_bytes=None if swap is None else int(swap),
            psi_cpu=gauge("pressure_share", "cpu", 1.0),
            psi_memory=gauge("pressure_share", "memory", 1.0),
            network_bytes_per_second=_rate(before, counters, _network, MOST_BYTES_PER_SECOND),
            clock_epoch_seconds=gauge("clock_seconds"),
            package_watts=_rate(before, counters, _packages, MOST_WATTS),
            package_fault=RAPL_HINT if gauge("package_energy_readable") == 0 else None,
        )


def parse_figures(text: str) -> Figures:
    """(metric name, value of its one label or "") → value. Raises ValueError for what is not the exposition format."""
    figures: Figures = {}
    try:
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                if len(sample.labels) <= 1:
                    figures[sample.name, next(iter(sample.labels.values()), "")] = float(sample.value)
    except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise ValueError(f"not a metrics page: {error}") from error
    if not any(name.startswith(f"{PREFIX}_") for name, _ in figures):
        raise ValueError("no agent's metrics on that page")
    return figures


def _within(value: float | None, most: float) -> float | None:
    """The value if it can be true: finite, from 0 to ``most``."""
    return value if value is not None and math.isfinite(value) and 0 <= value <= most else None


def _busy(before: _Counters, now: _Counters) -> float | None:
    if before.busy_seconds is None or now.busy_seconds is None:
        return None
    return now.busy_seconds - before.busy_seconds


def _packages(before: _Counters, now: _Counters) -> float | None:
    """Joules since then; none where the counter began anew."""
    if before.package_joules is None or now.package_joules is None:
        return None
    return now.package_joules - before.package_joules


def _network(before: _Counters, now: _Counters) -> float | None:
    """Bytes since then on the interfaces that both scrapes know."""
    both = before.network_bytes.keys() & now.network_bytes.keys()
    return sum(now.network_bytes[name] - before.network_bytes[name] for name in both) if both else None


def _rate(
    before: _Counters | None, now: _Counters, difference: Callable[[_Counters, _Counters], float | None], most: float
) -> float | None:
    if before is None or not SHORTEST_SECONDS <= now.at - before.at <= LONGEST_SECONDS:
        return None
    change = difference(before, now)
    return None if change is None else _within(change / (now.at - before.at), most)


def _metrics_url(host: str, url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"host {host}: agent URL {url[:200]!r} is not http://NAME:PORT")
    return url if parts.path not in ("", "/") else f"{parts.scheme}://{parts.netloc}/metrics"
