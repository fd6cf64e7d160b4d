"""The agent served on a loopback port and really scraped; absurd answers refused."""

import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import psutil
import pytest
from observe_world import HandClock

from rebalancerd.observe.agent import HostCollector, RunningAgent, read_pressure, serve_agent, split_listen, uplinks
from rebalancerd.observe.agent_client import MOST_CHARACTERS, HttpAgents


@pytest.fixture
def agent() -> Iterator[RunningAgent]:
    running = serve_agent("127.0.0.1:0")
    yield running
    running.close()


def test_a_real_scrape_over_loopback(agent: RunningAgent) -> None:
    clock = HandClock()
    agents = HttpAgents({"h1": f"http://{agent.address}"}, clock=clock)
    first = agents.read("h1")
    assert first is not None
    assert first.cpu_cores is None, "one scrape makes no rate"
    assert first.memory_available_bytes is not None
    assert 0 < first.memory_available_bytes <= psutil.virtual_memory().total
    assert first.swap_used_bytes is not None
    assert first.clock_epoch_seconds is not None
    clock.sleep(10.0)
    second = agents.read("h1")
    assert second is not None
    assert second.cpu_cores is not None
    assert second.cpu_cores >= 0
    assert second.network_bytes_per_second is None or second.network_bytes_per_second >= 0
    agents.close()


def test_what_the_page_says(agent: RunningAgent) -> None:
    page = httpx.get(f"http://{agent.address}/metrics", trust_env=False).text
    assert f'rebalancerd_agent_info{{hostname="{socket.gethostname()}"}} 1.0' in page
    assert "rebalancerd_agent_cpu_busy_seconds_total " in page
    assert "rebalancerd_agent_memory_available_bytes " in page


def test_an_agent_that_is_gone_is_no_answer(agent: RunningAgent) -> None:
    address = agent.address
    gone = socket.socket()
    gone.bind(("127.0.0.1", 0))
    agents = HttpAgents({"h1": f"http://{address}", "h2": f"http://127.0.0.1:{gone.getsockname()[1]}"}, timeout=0.5)
    assert agents.read("h1") is not None
    assert agents.read("h2") is None
    assert agents.read("h3") is None, "names no agent"
    agents.close()
    gone.close()


PAGE = """rebalancerd_agent_cpus {cpus}
rebalancerd_agent_cpu_busy_seconds_total {busy}
rebalancerd_agent_memory_total_bytes 1000
rebalancerd_agent_memory_available_bytes {available}
rebalancerd_agent_swap_used_bytes {swap}
rebalancerd_agent_pressure_share{{resource="cpu"}} {psi}
rebalancerd_agent_pressure_share{{resource="memory"}} 0.25
rebalancerd_agent_network_bytes_total{{interface="eth0"}} {net}
rebalancerd_agent_network_bytes_total{{interface="e\\"vil\\n"}} 7
"""
SANE = {"cpus": 4, "busy": 100.0, "available": 400, "swap": 3, "psi": 0.5, "net": 1000}


def answering(pages: list[str | Exception], status: int = 200) -> tuple[HttpAgents, HandClock]:
    def answer(request: httpx.Request) -> httpx.Response:
        page = pages.pop(0)
        if isinstance(page, Exception):
            raise page
        return httpx.Response(status, text=page)

    clock = HandClock()
    return HttpAgents({"h1": "http://a:1"}, clock=clock, transport=httpx.MockTransport(answer)), clock


def test_rates_between_two_scrapes() -> None:
    agents, clock = answering([PAGE.format(**SANE), PAGE.format(**{**SANE, "busy": 120.0, "net": 6000})])
    agents.read("h1")
    clock.sleep(10.0)
    sample = agents.read("h1")
    assert sample is not None
    assert (sample.cpu_cores, sample.network_bytes_per_second) == (2.0, 500.0)
    assert (sample.psi_cpu, sample.psi_memory, sample.memory_available_bytes, sample.swap_used_bytes) == (
        0.5,
        0.25,
        400,
        3,
    )


@pytest.mark.parametrize(
    ("absurd", "field"),
    [
        ({"busy": 50.0}, "cpu_cores"),  # counter reset
        ({"busy": 1e9}, "cpu_cores"),
        ({"busy": "NaN"}, "cpu_cores"),
        ({"available": 2000}, "memory_available_bytes"),  # more than there is
        ({"available": "-1"}, "memory_available_bytes"),
        ({"swap": "+Inf"}, "swap_used_bytes"),
        ({"psi": 40}, "psi_cpu"),  # per cent taken for a share
        ({"net": 0}, "network_bytes_per_second"),
    ],
)
def test_absurd_figures_are_unknown(absurd: dict[str, object], field: str) -> None:
    agents, clock = answering([PAGE.format(**SANE), PAGE.format(**{**SANE, "busy": 110.0, **absurd})])
    agents.read("h1")
    clock.sleep(10.0)
    sample = agents.read("h1")
    assert sample is not None
    assert getattr(sample, field) is None
    others = {"cpu_cores", "memory_available_bytes", "swap_used_bytes", "psi_cpu"} - {field}
    assert all(getattr(sample, other) is not None for other in others), "the rest stays"


@pytest.mark.parametrize(
    "page",
    [
        "",
        "<html>hello</html>",
        "up 1\n",
        "rebalancerd_agent_cpus{ 4",
        "x" * (MOST_CHARACTERS + 1),
        httpx.ReadTimeout("slow"),
    ],
)
def test_what_is_no_agents_page_is_no_answer(page: str | Exception) -> None:
    agents, _ = answering([page])
    assert agents.read("h1") is None


def test_an_error_or_a_redirect_is_no_answer() -> None:
    assert answering([PAGE.format(**SANE)], status=500)[0].read("h1") is None
    assert answering([PAGE.format(**SANE)], status=302)[0].read("h1") is None


@pytest.mark.parametrize("url", ["file:///etc/passwd", "h1:9178", "http://", "unix:///x"])
def test_only_http_urls(url: str) -> None:
    with pytest.raises(ValueError, match="host h1"):
        HttpAgents({"h1": url})


def test_pressure_files() -> None:
    assert (
        read_pressure("some avg10=12.50 avg60=0 avg300=0 total=1\nfull avg10=9.00 avg60=0 avg300=0 total=1\n") == 0.125
    )
    for bad in ("", "full avg10=1", "some avg60=1", "some avg10=x"):
        with pytest.raises(ValueError):
            read_pressure(bad)


def test_a_kernel_without_psi_exports_none(tmp_path: Path) -> None:
    families = {f.name: f for f in HostCollector(pressure_dir=tmp_path).collect()}
    assert families["rebalancerd_agent_pressure_share"].samples == []
    assert families["rebalancerd_agent_memory_total_bytes"].samples


def test_a_broken_pressure_file_costs_only_pressure(tmp_path: Path) -> None:
    (tmp_path / "cpu").write_text("garbage")
    names = {f.name for f in HostCollector(pressure_dir=tmp_path).collect()}
    assert "rebalancerd_agent_pressure_share" not in names
    assert "rebalancerd_agent_clock_seconds" in names


def test_traffic_is_counted_once(tmp_path: Path) -> None:
    for name in ("eno1/device", "br0/bridge"):
        (tmp_path / name).mkdir(parents=True)
    names = ["br0", "eno1", "lo", "vnet0"]
    assert uplinks(names, tmp_path) == ["eno1"]
    assert uplinks(["br0", "eth0", "lo", "vnet0", "tap3"], tmp_path) == ["eth0"]


@pytest.mark.parametrize(
    ("listen", "pair"), [("127.0.0.1:9178", ("127.0.0.1", 9178)), (":1", ("127.0.0.1", 1)), ("[::1]:2", ("::1", 2))]
)
def test_listen_addresses(listen: str, pair: tuple[str, int]) -> None:
    assert split_listen(listen) == pair


@pytest.mark.parametrize(
    "make", [lambda: split_listen("9178"), lambda: split_listen("h:x"), lambda: split_listen("h:70000")]
)
def test_bad_listen_addresses(make: Callable[[], object]) -> None:
    with pytest.raises(ValueError, match="HOST:PORT"):
        make()
