"""Crash sweep: the process dies after every effect in turn, a new one takes over, and every promise still holds.

P2 at most one migration per VM · P3 intent durable before the call · P6 the verdict is where the VM runs ·
P7 post-copy is never aborted (the scripted writer asserts it) · P10 killing the daemon at any instant is safe.
"""

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rebalancerd.cluster.migration import MigrationRecord, MigrationState
from rebalancerd.cluster.units import GIB
from rebalancerd.cluster.vm import DomainState
from rebalancerd.ports import HostRefusedError, HostUnreachableError
from tests.unit.act.act_world import SETTINGS, VM, CrashError, Scene

Happening = Callable[[Scene], None]
LONG_ENOUGH = SETTINGS.lost_source_seconds + SETTINGS.deadline_seconds + 200.0


def job_runs(scene: Scene) -> bool:
    return any(not job.returned for job in scene.world.jobs)


def flow(scene: Scene) -> None:
    if job_runs(scene):
        scene.world.run(iteration=1, remaining_bytes=GIB // 2, elapsed_seconds=2.0)


def iterate(scene: Scene) -> None:
    if job_runs(scene):
        before = scene.world.job().progress
        scene.world.run(iteration=(before.iteration or 1) + 1, remaining_bytes=GIB // 4, elapsed_seconds=5.0)


def arrive(scene: Scene) -> None:
    if job_runs(scene):
        scene.world.arrive()


def arrive_with_error(scene: Scene) -> None:
    if job_runs(scene):
        scene.world.arrive(error=HostRefusedError("a", "monitor", 38))


def arrive_paused(scene: Scene) -> None:
    if job_runs(scene):
        scene.world.arrive(state=DomainState.PAUSED)


def roll_back(scene: Scene) -> None:
    if job_runs(scene):
        scene.world.roll_back()


def guest_stops(scene: Scene) -> None:
    if job_runs(scene):
        scene.world.roll_back()
        scene.world.domains[("a", VM)].state = DomainState.SHUTOFF


def long_wait(scene: Scene) -> None:
    scene.pass_time(70.0, every=7.0)


def abort(scene: Scene) -> None:
    scene.executor.abort(VM, "operator")


def silence(scene: Scene) -> None:
    scene.world.silent = {"a"}


def silence_destination(scene: Scene) -> None:
    scene.world.silent = {"b"}


def hear_again(scene: Scene) -> None:
    scene.world.silent = set()


def no_autostart_now(scene: Scene) -> None:
    scene.world.autostart_fails = HostUnreachableError("b", "no answer")


def ledger_full(scene: Scene) -> None:
    scene.ledger.broken = True


def ledger_free(scene: Scene) -> None:
    scene.ledger.broken = False


def start_again(scene: Scene) -> None:
    scene.start()


STORIES: dict[str, tuple[Happening, ...]] = {
    "arrives": (flow, iterate, arrive),
    "arrives with an error": (flow, arrive_with_error),
    "arrives paused": (flow, arrive_paused),
    "rolls back": (flow, roll_back),
    "is aborted by an operator": (flow, abort, roll_back),
    "loses the race of an abort": (flow, abort, arrive),
    "passes its deadline": (flow, long_wait, roll_back),
    "is stopped by its guest": (flow, guest_stops),
    "is silent for a while": (flow, silence, long_wait, hear_again, arrive),
    "gets its autostart late": (flow, no_autostart_now, arrive, long_wait),
}


def act_out(scene: Scene, story: tuple[Happening, ...]) -> bool:
    """Play it; False if the process died on the way."""
    try:
        scene.start()
        scene.executor.tick()
        for happening in story:
            happening(scene)
            scene.executor.tick()
        return True
    except CrashError:
        return False


def finish(scene: Scene) -> None:
    """A new process on the same ledger, and all the time it needs."""
    scene.ledger.broken, scene.world.silent, scene.world.autostart_fails = False, set(), None
    scene.restart()
    check_always(scene)
    scene.pass_time(10.0)
    if job_runs(scene):
        scene.world.arrive()
    scene.pass_time(LONG_ENOUGH, every=10.0)


def check_always(scene: Scene) -> None:
    world = scene.world
    running = [job for job in world.jobs if not job.returned]
    assert len(running) <= 1
    intents = [call[1] for call in world.calls if call[0] == "intent"]
    for index, call in enumerate(world.calls):
        if call[0] == "migrate":
            assert ("intent", call[2]) in world.calls[:index], "a call without a durable intent"
    migrated = [call[2] for call in world.calls if call[0] == "migrate"]
    assert len(migrated) == len(set(migrated)), "an intent was carried out twice"
    assert len(intents) == len(set(intents))


def check_at_the_end(scene: Scene) -> None:
    check_always(scene)
    world = scene.world
    assert scene.executor.active() == ()
    for rows in scene.ledger.rows.values():
        record = rows[-1]
        assert not record.state.is_open
        assert record.ended_at is not None
        assert sum(not r.state.is_open for r in rows) == 1, "one verdict each"
    if not scene.ledger.rows:
        return
    record = scene.ledger.last()
    there, here = world.domains.get(("b", VM)), world.domains.get(("a", VM))
    if there is not None and there.state is DomainState.RUNNING:
        assert record.state is MigrationState.SUCCEEDED
        assert there.autostart is True
    elif there is not None:
        assert record.state is MigrationState.DEGRADED
    elif here is not None and here.state is DomainState.RUNNING:
        assert record.state in (MigrationState.FAILED, MigrationState.ABORTED, MigrationState.ABANDONED)
        assert here.autostart is True
    else:
        assert record.state in (MigrationState.VM_STOPPED, MigrationState.LOST_SOURCE)


@pytest.mark.parametrize("name", STORIES)
def test_killed_after_every_effect(name: str) -> None:
    """Each story, cut after each of its effects and once not at all."""
    cut = 1
    while True:
        scene = Scene()
        scene.world.crash_after = cut
        whole = act_out(scene, STORIES[name])
        check_always(scene)
        finish(scene)
        check_at_the_end(scene)
        if whole:
            break
        cut += 1
    assert cut > 3


def test_killed_twice() -> None:
    """The one that takes over dies too, after each of its effects."""
    for first in range(1, 9):
        for second in range(1, 6):
            scene = Scene()
            scene.world.crash_after = first
            act_out(scene, STORIES["is aborted by an operator"])
            scene.world.crash_after = scene.world.effects + second
            try:
                scene.executor = scene.build()
                scene.executor.adopt()
                scene.pass_time(5.0)
            except CrashError:
                pass
            finish(scene)
            check_at_the_end(scene)


HAPPENINGS: tuple[Happening, ...] = (
    flow,
    iterate,
    arrive,
    arrive_with_error,
    roll_back,
    guest_stops,
    long_wait,
    abort,
    silence,
    silence_destination,
    hear_again,
    ledger_full,
    ledger_free,
    start_again,
)


@settings(max_examples=150, deadline=None)
@given(
    story=st.lists(st.sampled_from(HAPPENINGS), max_size=9),
    crash_after=st.one_of(st.none(), st.integers(min_value=1, max_value=25)),
)
def test_any_story_and_any_crash(story: list[Happening], crash_after: int | None) -> None:
    scene = Scene()
    scene.world.crash_after = crash_after
    act_out(scene, tuple(story))
    check_always(scene)
    finish(scene)
    for record in (rows[-1] for rows in scene.ledger.rows.values()):
        assert isinstance(record, MigrationRecord)
        assert not record.state.is_open
        assert record.state is not MigrationState.MISSING
        assert record.state is not MigrationState.DUPLICATED
    check_always(scene)
