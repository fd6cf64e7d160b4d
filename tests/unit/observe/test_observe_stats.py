"""libvirt's dictionaries, defensively; counters to rates."""

from dataclasses import replace

import libvirt
import pytest

from rebalancerd.cluster.host import HostFacts
from rebalancerd.cluster.sample import DomainSample, HostSample
from rebalancerd.cluster.units import GIB, KIB, MIB
from rebalancerd.cluster.vm import DomainState
from rebalancerd.observe.dirty_watch import DirtyWatch
from rebalancerd.observe.domain_stats import (
    PAUSED_REASONS,
    RUNNING_REASONS,
    completion_of,
    dirty_status,
    domain_sample,
    domain_state,
    progress_of,
    running_job,
)
from rebalancerd.observe.rates import HostRates, Rates

STATS = {
    "state.state": 1,
    "state.reason": 5,
    "cpu.time": 5_000_000_000,
    "vcpu.current": 2,
    "vcpu.maximum": 2,
    "vcpu.0.delay": 100,
    "vcpu.1.delay": 50,
    "balloon.current": 1024,
    "balloon.rss": 2048,
    "net.count": 1,
    "net.0.rx.bytes": 10,
    "net.0.tx.bytes": 20,
    "block.count": 2,
    "block.0.rd.bytes": 1,
    "block.0.wr.bytes": 2,
}


def test_a_record_of_bulk_statistics() -> None:
    sample = domain_sample("u", "n", STATS, None, fault=None)
    assert (sample.state, sample.cpu_time_ns, sample.vcpus, sample.vcpu_delay_ns) == (
        DomainState.RUNNING,
        5_000_000_000,
        2,
        150,
    )
    assert (sample.balloon_bytes, sample.rss_bytes) == (1024 * KIB, 2048 * KIB)
    assert (sample.block_bytes, sample.network_bytes) == (3, 30)


def test_missing_groups_are_unknown_and_no_device_is_a_true_zero() -> None:
    sample = domain_sample("u", "n", {"state.state": 1, "net.count": 0, "block.count": 1}, None, fault=None)
    assert (sample.cpu_time_ns, sample.rss_bytes, sample.vcpus, sample.vcpu_delay_ns) == (None, None, None, None)
    assert (sample.network_bytes, sample.block_bytes) == (0, None)


@pytest.mark.parametrize("absurd", [-1, float("nan"), float("inf"), "7", True, 2**70])
def test_absurd_figures_are_unknown(absurd: object) -> None:
    assert domain_sample("u", "n", {**STATS, "cpu.time": absurd}, None, fault=None).cpu_time_ns is None


def test_states_are_libvirts_own_numbers() -> None:
    """The reasons that decide are those of the installed library's header."""
    assert {getattr(libvirt, f"VIR_DOMAIN_{s.name}", n) for n, s in RUNNING_REASONS.items()} == set(RUNNING_REASONS)
    assert {getattr(libvirt, f"VIR_DOMAIN_{s.name}", n) for n, s in PAUSED_REASONS.items()} == set(PAUSED_REASONS)
    pairs = {
        (libvirt.VIR_DOMAIN_RUNNING, libvirt.VIR_DOMAIN_RUNNING_BOOTED): DomainState.RUNNING,
        (libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_USER): DomainState.PAUSED,
        (libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_MIGRATION): DomainState.PAUSED_MIGRATION,
        (libvirt.VIR_DOMAIN_SHUTOFF, 0): DomainState.SHUTOFF,
        (libvirt.VIR_DOMAIN_CRASHED, 0): DomainState.CRASHED,
        (libvirt.VIR_DOMAIN_SHUTDOWN, 0): DomainState.UNKNOWN,
        (libvirt.VIR_DOMAIN_PMSUSPENDED, 0): DomainState.PAUSED,
        (99, 99): DomainState.UNKNOWN,
        (None, None): DomainState.UNKNOWN,
    }
    assert {pair: domain_state(*pair) for pair in pairs} == pairs


def test_a_running_migration_job() -> None:
    stats = {
        "type": 2,
        "operation": 5,
        "time_elapsed": 2500,
        "memory_total": 100 * MIB,
        "memory_processed": 150 * MIB,
        "memory_remaining": 10 * MIB,
        "memory_bps": 5 * MIB,
        "memory_dirty_rate": 10,
        "memory_page_size": 4096,
        "memory_iteration": 3,
        "auto_converge_throttle": 20,
        "downtime": 300,
    }
    progress = progress_of(stats)
    assert progress is not None
    assert (progress.elapsed_seconds, progress.iteration, progress.throttle) == (2.5, 3, 0.2)
    assert (progress.dirty_bytes_per_second, progress.expected_downtime_seconds) == (40960.0, 0.3)
    setup = progress_of({"type": 2, "operation": 5, "time_elapsed": 10, "memory_total": 0, "memory_remaining": 0})
    assert setup is not None
    assert (setup.total_bytes, setup.remaining_bytes) == (None, None)


def test_other_jobs_are_no_migration() -> None:
    assert progress_of({"type": 0}) is None
    assert progress_of({"type": 1, "operation": 9}) is None
    assert running_job({"type": 1, "operation": 9}) == "backup"
    assert running_job({"type": 3, "operation": 5}) is None


def test_completions_with_and_without_type() -> None:
    event = {"operation": 5, "time_elapsed": 4000, "downtime": 120, "memory_processed": 9, "memory_iteration": 2}
    done = completion_of(event)
    assert done is not None
    assert (done.total_seconds, done.downtime_seconds, done.transferred_bytes, done.iterations) == (4.0, 0.12, 9, 2)
    assert completion_of({**event, "type": 4}) is None
    assert completion_of({**event, "success": False}) is None
    assert completion_of({**event, "operation": 2}) is None


def dirty(status: int, started: int, rate: int) -> dict[str, object]:
    return {
        "dirtyrate.calc_status": status,
        "dirtyrate.calc_start_time": started,
        "dirtyrate.calc_period": 2,
        "dirtyrate.calc_mode": "page-sampling",
        "dirtyrate.megabytes_per_second": rate,
    }


def test_only_results_whose_age_is_known_are_readings() -> None:
    """What was there before we looked is not; what appears afterwards is, once, with the instant it appeared."""
    watch = DirtyWatch()
    assert watch.take("u", dirty_status(dirty(2, 10, 7)), 100.0) is None
    assert watch.take("u", dirty_status(dirty(1, 20, 0)), 110.0) is None
    reading = watch.take("u", dirty_status(dirty(2, 20, 5)), 120.0)
    assert reading is not None
    assert (reading.taken_at, reading.period_seconds, reading.rate_bytes_per_second) == (120.0, 2.0, 5 * MIB)
    assert watch.take("u", dirty_status(dirty(2, 20, 5)), 130.0) == reading
    assert watch.take("u", dirty_status({}), 140.0) is None


def test_other_modes_and_broken_groups_are_no_status() -> None:
    assert dirty_status({**dirty(2, 1, 1), "dirtyrate.calc_mode": "dirty-ring"}) is None
    assert dirty_status({**dirty(2, 1, 1), "dirtyrate.calc_period": 0}) is None
    assert dirty_status(dirty(0, 0, 0)) is None


FACTS = HostFacts(uuid="u", cpus=4, memory_bytes=8 * GIB)


def host(at: float, *, busy: int | None = 0, domains: tuple[DomainSample, ...] = (), **changes: object) -> HostSample:
    base = HostSample(
        host="h1",
        taken_at=at,
        facts=FACTS,
        cpu_busy_ns=busy,
        memory_total_bytes=8 * GIB,
        memory_available_bytes=2 * GIB,
        domains=domains,
    )
    return replace(base, **changes)  # type: ignore[arg-type]


def vm(cpu: int | None, **changes: object) -> DomainSample:
    base = DomainSample(
        uuid="v", name="v", state=DomainState.RUNNING, facts=None, vcpus=2, cpu_time_ns=cpu, rss_bytes=GIB
    )
    return replace(base, **changes)  # type: ignore[arg-type]


def two(first: HostSample, second: HostSample) -> HostRates:
    rates = Rates(longest_seconds=60.0)
    rates.update(first)
    return rates.update(second)


def test_rates_of_two_samples() -> None:
    found = two(
        host(10.0, domains=(vm(10**9, vcpu_delay_ns=0, block_bytes=0),)),
        host(20.0, busy=20 * 10**9, domains=(vm(16 * 10**9, vcpu_delay_ns=10**9, block_bytes=1000),)),
    )
    assert (found.load.cpu_cores, found.load.memory_used_bytes, found.interval_seconds) == (2.0, 6 * GIB, 10.0)
    load = found.vms["v"]
    assert (load.cpu_cores, load.steal_cores, load.memory_bytes) == (1.5, 0.1, GIB)
    assert (load.block_bytes_per_second, load.network_bytes_per_second) == (100.0, None)
    assert found.dropped == ()


@pytest.mark.parametrize(
    ("first", "second", "word"),
    [
        (5 * 10**9, 10**9, "went back"),
        (0, 10**12, "more than"),
    ],
)
def test_absurd_counters_are_dropped_with_a_reason_never_zero(first: int, second: int, word: str) -> None:
    found = two(host(10.0, domains=(vm(first),)), host(20.0, domains=(vm(second),)))
    assert found.vms["v"].cpu_cores is None
    assert found.vms["v"].memory_bytes == GIB
    (dropped,) = found.dropped
    assert (dropped.subject, dropped.field) == ("v", "cpu_cores")
    assert word in dropped.reason


@pytest.mark.parametrize(("second_at", "word"), [(10.0, "only"), (5.0, "only"), (200.0, "nothing about now")])
def test_intervals_that_say_nothing_give_no_rates(second_at: float, word: str) -> None:
    found = two(host(10.0, domains=(vm(0),)), host(second_at, busy=10**9, domains=(vm(10**9),)))
    assert (found.load.cpu_cores, found.vms["v"].cpu_cores, found.interval_seconds) == (None, None, None)
    assert word in found.dropped[0].reason


def test_unknown_stays_unknown_and_a_new_vm_has_no_rate_yet() -> None:
    found = two(host(10.0, busy=None), host(20.0, domains=(vm(10**9),), memory_available_bytes=None))
    assert (found.load.cpu_cores, found.load.memory_used_bytes) == (None, None)
    assert found.vms["v"].cpu_cores is None


def test_memory_that_cannot_be_is_dropped_for_the_next_best() -> None:
    rates = Rates(longest_seconds=60.0)
    found = rates.update(host(1.0, domains=(vm(0, rss_bytes=2**60, balloon_bytes=GIB),)))
    assert found.vms["v"].memory_bytes == GIB
    assert "rss" in found.dropped[0].reason
    assert rates.update(host(2.0, memory_available_bytes=9 * GIB)).load.memory_used_bytes is None


def test_counters_that_all_stand_still_are_old_figures_not_an_idle_host() -> None:
    idle = two(host(10.0, busy=5, domains=(vm(7),)), host(20.0, busy=5, domains=(vm(7),)))
    assert (idle.load.cpu_cores, idle.vms["v"].cpu_cores) == (None, None)
    assert "stood still" in idle.dropped[0].reason
    quiet_guest = two(host(10.0, busy=5, domains=(vm(7),)), host(20.0, busy=6, domains=(vm(7),)))
    assert quiet_guest.vms["v"].cpu_cores == 0.0


def test_a_host_whose_idle_time_goes_on_is_idle() -> None:
    """Busy time is counted in ticks of 10 ms: an empty host may use less than one between two samples."""
    empty = two(host(10.0, busy=5, cpu_idle_ns=100), host(20.0, busy=5, cpu_idle_ns=10**10))

    assert empty.load.cpu_cores == 0.0
    assert empty.dropped == ()
