"""Small clusters of machines that sleep: a, b carry VMs, c is empty and has a management controller."""

from rebalancerd.act.power.settings import PowerSettings
from rebalancerd.cluster.policy import Mode
from rebalancerd.cluster.power import PowerLimits, PowerPhase, PowerRecord
from rebalancerd.cluster.units import GIB
from rebalancerd.guard.settings import GuardSettings
from rebalancerd.sim.demand import Demand
from rebalancerd.sim.scenario import WorldSpec
from rebalancerd.sim.spec import ClusterSpec, HostSpec, VmSpec
from rebalancerd.sim.world import World

QUICK = PowerSettings(
    poll_seconds=10.0,
    asleep_poll_seconds=30.0,
    empty_settle_seconds=20.0,
    shutdown_deadline_seconds=180.0,
    silent_off_seconds=60.0,
    wake_deadline_seconds=300.0,
    reorder_seconds=60.0,
    retry_failed_seconds=300.0,
    stuck_hold_seconds=600.0,
)
FEW = PowerLimits(
    boot_seconds=120.0,
    min_up_seconds=600.0,
    min_down_seconds=300.0,
    by_hand_seconds=1800.0,
    hosts_on_min=1,
    spare_hosts=1,
    unfold_seconds=120.0,
    margin_seconds=60.0,
)


def spec(
    *,
    mode: Mode = Mode.AUTO,
    folding: bool = False,
    hosts: int = 3,
    cores: float = 0.5,
    limits: PowerLimits = FEW,
    times: PowerSettings = QUICK,
) -> WorldSpec:
    """Hosts a, b with two VMs each, and from c on empty ones with power control."""
    names = "abcdefgh"[:hosts]
    machines = tuple(HostSpec(name=n, cpus=8, memory_bytes=32 * GIB, power=n not in "ab") for n in names)
    vms = tuple(
        VmSpec(name=f"vm-{h}{i}", host=h, vcpus=4, memory_bytes=2 * GIB, demand=Demand(base=cores))
        for h in "ab"
        for i in (1, 2)
    )
    return WorldSpec(
        cluster=ClusterSpec(hosts=machines, vms=vms, seed=3),
        mode=mode,
        run_seconds=7200.0,
        decide_seconds=60.0,
        guard=GuardSettings(hold_rounds=99),
        power=times,
        limits=limits,
        folding=folding,
    )


def seconds_until(world: World, host: str, *phases: PowerPhase, within: float = 3600.0) -> float:
    """Run until the host's record is in one of these phases; how long that took."""
    begun = world.clock.monotonic()
    while world.ledger.power.get(host, PowerRecord(host=host)).phase not in phases:
        assert world.clock.monotonic() - begun < within, f"{host}: {world.ledger.power.get(host)}"
        world.run(world.clock.monotonic() + 5.0)
    return world.clock.monotonic() - begun


def record(world: World, host: str = "c") -> PowerRecord:
    return world.ledger.power.get(host) or PowerRecord(host=host)


def pass_test(world: World, host: str = "c") -> None:
    """Pass the host's wake test."""
    world.run(max(120.0, world.clock.monotonic()))
    order(world, "power_test", host)
    seconds_until(world, host, PowerPhase.ASLEEP)
    seconds_until(world, host, PowerPhase.AWAKE)
    world.run(world.clock.monotonic() + 150)  # until it answers steadily
    assert record(world, host).tested_at is not None


def order(world: World, kind: str, host: str = "c") -> None:
    from rebalancerd.cluster.decision import CommandKind

    world.command(CommandKind(kind), (host,))


def demand(world: World, cores: float) -> None:
    """Every VM asks for so many cores from now on."""
    world.cluster.guests.demand.base[:] = cores
    world.cluster.changed()
