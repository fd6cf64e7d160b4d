"""RAPL as the agent exports it and as the daemon takes it: packages only, wraps undone, nothing where nothing is known."""

import os
from pathlib import Path

import httpx
import pytest
from observe_world import HandClock

from rebalancerd.observe.agent_client import HttpAgents
from rebalancerd.observe.agent_power import RaplCollector, drawn, packages

MOST = 262_143_328_850


def zone(root: Path, name: str, what: str, energy: int | str, most: int = MOST) -> Path:
    made = root / name
    made.mkdir(parents=True)
    (made / "name").write_text(f"{what}\n")
    (made / "energy_uj").write_text(f"{energy}\n")
    (made / "max_energy_range_uj").write_text(f"{most}\n")
    return made


def told(rapl: RaplCollector) -> dict[str, float]:
    return {sample.name: sample.value for family in rapl.collect() for sample in family.samples}


def test_packages_are_summed_and_nothing_is_counted_twice(tmp_path: Path) -> None:
    one, two = zone(tmp_path, "intel-rapl:0", "package-0", 1_000_000), zone(tmp_path, "intel-rapl:1", "package-1", 0)
    zone(tmp_path, "intel-rapl:0:0", "core", 77)
    zone(tmp_path, "intel-rapl:2", "psys", 88)
    zone(tmp_path, "intel-rapl-mmio:0", "package-0", 99)
    assert packages(tmp_path) == [one, two]
    rapl = RaplCollector(tmp_path)
    assert told(rapl) == {
        "rebalancerd_agent_package_energy_readable": 1,
        "rebalancerd_agent_package_joules_total": 0,
    }
    (one / "energy_uj").write_text("51000000\n")
    (two / "energy_uj").write_text("20000000\n")
    assert told(rapl)["rebalancerd_agent_package_joules_total"] == pytest.approx(70)


def test_a_counter_that_wraps_goes_on(tmp_path: Path) -> None:
    one = zone(tmp_path, "intel-rapl:0", "package-0", MOST - 3_000_000)
    rapl = RaplCollector(tmp_path)
    told(rapl)
    (one / "energy_uj").write_text("2000000\n")
    assert told(rapl)["rebalancerd_agent_package_joules_total"] == pytest.approx(5.000001)
    assert drawn(5, 5, 10) == 0
    assert drawn(10, 0, 10) == 1


@pytest.mark.parametrize("broken", ["", "nan", "-5", str(MOST + 1)])
def test_a_counter_that_makes_no_sense_is_none_and_the_next_begins_anew(tmp_path: Path, broken: str) -> None:
    one = zone(tmp_path, "intel-rapl:0", "package-0", 1_000_000)
    rapl = RaplCollector(tmp_path)
    told(rapl)
    (one / "energy_uj").write_text(broken)
    assert told(rapl) == {"rebalancerd_agent_package_energy_readable": 0}
    (one / "energy_uj").write_text("900000000\n")
    assert told(rapl)["rebalancerd_agent_package_joules_total"] == 0


def test_a_counter_for_root_alone_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = zone(tmp_path, "intel-rapl:0", "package-0", 1)
    if os.geteuid():
        (one / "energy_uj").chmod(0)
    else:
        real = Path.read_text

        def refused(self: Path, encoding: str | None = None) -> str:
            if self.name == "energy_uj":
                raise PermissionError(13, "Permission denied")
            return real(self, encoding)

        monkeypatch.setattr(Path, "read_text", refused)
    assert told(RaplCollector(tmp_path)) == {"rebalancerd_agent_package_energy_readable": 0}


def test_a_host_without_rapl_says_nothing(tmp_path: Path) -> None:
    assert told(RaplCollector(tmp_path)) == {}
    assert told(RaplCollector(tmp_path / "none")) == {}


def readings(*pages: str) -> list[tuple[float | None, str | None]]:
    """What the daemon makes of those answers, ten seconds apart."""
    left, clock, found = list(pages), HandClock(), []
    transport = httpx.MockTransport(lambda _request: httpx.Response(200, text=left.pop(0)))
    agents = HttpAgents({"h1": "http://h1:9178"}, clock=clock, transport=transport)
    for _ in pages:
        sample = agents.read("h1")
        assert sample is not None
        found.append((sample.package_watts, sample.package_fault))
        clock.sleep(10.0)
    agents.close()
    return found


def page(joules: float | str) -> str:
    return f"rebalancerd_agent_package_energy_readable 1\nrebalancerd_agent_package_joules_total {joules}\n"


def test_watts_are_joules_over_time_and_absurd_ones_are_none() -> None:
    asked = (100.0, 1100.0, 50.0, "NaN", 300.0, 1e9, 1e9 + 500)
    watts = [watts for watts, _ in readings(*map(page, asked))]
    # the first of all, an agent begun anew, no number, the first after that, 100 MW
    assert watts == [None, 100.0, None, None, None, None, 50.0]


def test_the_daemon_says_why_there_is_no_reading() -> None:
    refused = "rebalancerd_agent_package_energy_readable 0\n"
    assert readings(refused, "rebalancerd_agent_cpus 4\n")[0][1] is not None
    assert "CVE-2020-8694" in str(readings(refused)[0][1])
    assert readings("rebalancerd_agent_cpus 4\n") == [(None, None)]
