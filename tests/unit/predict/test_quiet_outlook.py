"""Quiet outlooks of a snapshot: what is read for them and when, and which of spell and hour is told."""

import numpy as np
import pytest

from rebalancerd.cluster.dirty import DirtyCurve, DirtyPoint
from rebalancerd.cluster.host import Host
from rebalancerd.cluster.quiet import NoQuietHour, QuietHour, QuietSpell
from rebalancerd.cluster.series import Series
from rebalancerd.cluster.snapshot import Snapshot
from rebalancerd.cluster.units import MIB
from rebalancerd.cluster.vm import DomainState, Vm, VmFacts
from rebalancerd.predict.demand.forecast import Forecast
from rebalancerd.predict.demand.naive import NAIVE
from rebalancerd.predict.demand.trusted import TrustedForecaster
from rebalancerd.predict.quiet_outlook import QuietOutlooks

DAY = 86_400.0
NOON = 100 * DAY + 12 * 3600.0
BUSY, QUIET = 80 * MIB, 3 * MIB
FLAT = NAIVE["persistence"]  # never expects less than now


def snapshot(*uuids: str, dirty: float = BUSY) -> Snapshot:
    """VMs that dirty that much now, 80 MiB/s if nothing is said."""
    point = DirtyPoint(period_seconds=1.0, unique_bytes=dirty, standard_error_bytes=0.0, readings=3)
    vms = tuple(
        Vm(
            facts=VmFacts(uuid=uuid, name=uuid, vcpus=1, memory_bytes=2**30),
            host="a",
            state=DomainState.RUNNING,
            dirty=DirtyCurve(points=(point,), age_seconds=1.0),
        )
        for uuid in uuids
    )
    return Snapshot(taken_at=NOON, hosts=(Host(name="a", facts=None),), vms=vms)


def series(step: float, end: float, **columns: list[float]) -> Series:
    values = np.array(list(columns.values()), dtype=np.float32).T
    return Series(resource="dirty", ids=tuple(columns), values=values, step_seconds=step, end=end)


def night(hour: int, rate: float) -> list[float]:
    """Nine days up to midnight, busy but for that hour."""
    day = [float(BUSY)] * 24
    day[hour] = rate
    return day * 9


HOURLY = series(3600.0, 100 * DAY, v0=night(3, QUIET), v1=night(14, 5 * MIB))
CALM = series(300.0, NOON, v0=[float(QUIET)] * 48, v1=[float(BUSY)] * 48)  # v0 is busy only now


class Kept:
    """A history that keeps in mind what it was asked."""

    def __init__(self, fine: Series, hourly: Series = HOURLY) -> None:
        self.tiers, self.asked = (fine, hourly), []

    def __call__(self, resource: str, tier: int) -> Series:
        self.asked.append((resource, tier))
        return self.tiers[tier]


def test_outlooks_are_worked_out_when_asked_for_and_history_is_read_once() -> None:
    """A cycle in which nothing is refused for its cost reads no history; one with many such VMs reads each tier once."""
    history = Kept(CALM)
    quiet = QuietOutlooks(snapshot("v0", "v1"), history, FLAT)
    assert (len(quiet), list(quiet), "v0" in quiet, "x" in quiet) == (2, ["v0", "v1"], True, False)
    assert history.asked == []

    found = [quiet["v0"], quiet["v1"], quiet["v0"]]

    assert [f.hour_utc for f in found if isinstance(f, QuietHour)] == [3, 14, 3]
    assert sorted(history.asked) == [("vm_dirty_bytes_per_second", 0), ("vm_dirty_bytes_per_second", 1)]
    assert quiet.get("x") is None
    with pytest.raises(KeyError):
        quiet["x"]


def test_a_history_without_such_tiers_knows_no_quiet_hour() -> None:
    def history(resource: str, tier: int) -> Series:
        raise IndexError(tier)

    assert isinstance(QuietOutlooks(snapshot("v0"), history, FLAT)["v0"], NoQuietHour)


def test_a_spell_comes_before_the_hour_of_day_and_only_for_the_vm_that_has_one() -> None:
    quiet = QuietOutlooks(snapshot("v0", "v1"), Kept(CALM), NAIVE["mean_2h"])

    spell, hour = quiet["v0"], quiet["v1"]

    assert isinstance(spell, QuietSpell)
    assert (spell.vm_uuid, spell.starts_in_seconds, spell.basis) == ("v0", 300.0, "mean_2h")
    assert isinstance(hour, QuietHour)
    assert hour.hour_utc == 14


def test_whoever_forecasts_cpu_now_forecasts_this() -> None:
    """Without a trusted model it is the naive way that the keeper found best, and a change of it shows at once."""
    forecaster = TrustedForecaster(lambda: NOON)
    before = QuietOutlooks(snapshot("v0"), Kept(CALM), forecaster)["v0"]
    forecaster.swap(forecaster.seat, forecaster._factors, "mean_2h")
    after = QuietOutlooks(snapshot("v0"), Kept(CALM), forecaster)["v0"]

    assert isinstance(before, QuietHour), "persistence never expects less"
    assert isinstance(after, QuietSpell)
    assert after.basis == forecaster.basis == "mean_2h"


@pytest.mark.parametrize("odd", ["raises", "nan", "shape"])
def test_a_forecaster_that_fails_costs_the_spell_only(odd: str) -> None:
    class Broken:
        basis = "broken"

        def forecast(self, panel: object, steps: tuple[int, ...]) -> Forecast:
            if odd == "raises":
                raise ZeroDivisionError
            told = FLAT.forecast(panel, steps[:1] if odd == "shape" else steps)
            told.quantiles[...] = 0.0 if odd == "shape" else float("nan")
            return told

    found = QuietOutlooks(snapshot("v0"), Kept(CALM), Broken())["v0"]

    assert isinstance(found, QuietHour)
    assert found.hour_utc == 3


def test_who_dirties_nothing_or_is_unknown_has_no_spell() -> None:
    for dirty in (0.0, float("nan"), 1e20):
        assert not isinstance(
            QuietOutlooks(snapshot("v0", dirty=dirty), Kept(CALM), NAIVE["mean_2h"])["v0"], QuietSpell
        )
