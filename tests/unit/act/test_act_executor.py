"""The executor on scripted hosts: from intent to verdict, and what it must never do."""

import threading
from dataclasses import replace

import pytest

from rebalancerd.act.settings import ActSettings
from rebalancerd.cluster.cost import MigrationOptions
from rebalancerd.cluster.migration import Completion, MigrationRecord, MigrationState
from rebalancerd.cluster.refusal import Code, Refusal
from rebalancerd.cluster.units import GIB, MIB
from rebalancerd.cluster.vm import DomainState
from rebalancerd.ports import HostRefusedError, HostUnreachableError
from tests.unit.act.act_world import FACTS, OTHER, SETTINGS, VM, Domain, Scene, cost, one_step_plan


def state(scene: Scene) -> MigrationState:
    return scene.ledger.last().state


def kinds(scene: Scene) -> list[str]:
    return [call[0] for call in scene.world.calls]


class TestStart:
    def test_intent_is_durable_before_the_call(self) -> None:
        scene = Scene()
        record = scene.started()

        assert kinds(scene) == ["intent", "migrate", "update"]
        assert scene.ledger.states() == ["intent", "running"]
        assert scene.executor.active() == (record,)
        assert (record.plan_id, record.step, record.controller, record.epoch) == ("p-1", 1, "test", 7)
        assert record.autostart is True
        assert record.started_at == scene.world.clock.wall()

    def test_no_ledger_no_action(self) -> None:
        scene = Scene()
        scene.executor.adopt()
        scene.ledger.broken = True
        result = scene.start()

        assert isinstance(result, Refusal)
        assert result.code is Code.LEDGER_UNAVAILABLE
        assert kinds(scene) == []

    def test_an_intent_the_broken_ledger_kept_after_all_is_found_before_the_next_start(self) -> None:
        """The write failed for us, but the row is there: it counts as running until it cannot be."""
        scene = Scene()
        scene.executor.adopt()
        real = scene.ledger.open_intent

        def written_but_failed(record: MigrationRecord) -> None:
            real(record)
            scene.ledger.open_intent = real  # type: ignore[method-assign]
            scene.ledger.broken = True
            scene.ledger._check()

        scene.ledger.open_intent = written_but_failed  # type: ignore[method-assign]
        first = scene.start()
        scene.ledger.broken = False
        second = scene.start()

        assert isinstance(first, Refusal)
        assert isinstance(second, Refusal)
        assert (first.code, second.code) == (Code.LEDGER_UNAVAILABLE, Code.VM_BUSY)
        scene.pass_time(SETTINGS.start_before_seconds + SETTINGS.lease_seconds + 1)
        assert state(scene) is MigrationState.ABANDONED
        assert "migrate" not in kinds(scene)

    def test_a_lease_lost_after_the_intent_stops_the_call(self) -> None:
        scene = Scene()
        real = scene.ledger.open_intent

        def lose(record: MigrationRecord) -> None:
            real(record)
            scene.lease.holds = False

        scene.ledger.open_intent = lose  # type: ignore[method-assign]
        result = scene.start()

        assert isinstance(result, Refusal)
        assert result.code is Code.LEASE_LOST
        assert "migrate" not in kinds(scene)
        assert scene.ledger.states() == ["intent", "abandoned"]
        assert scene.executor.active() == ()

    def test_a_lease_lost_and_won_again_after_the_intent_stops_the_call(self) -> None:
        """Somebody else may have led in between, and may have given this intent up."""
        scene = Scene()
        real = scene.ledger.open_intent

        def lose_and_win(record: MigrationRecord) -> None:
            real(record)
            scene.lease.epoch += 2

        scene.ledger.open_intent = lose_and_win  # type: ignore[method-assign]
        result = scene.start()

        assert isinstance(result, Refusal)
        assert result.code is Code.LEASE_LOST
        assert "epoch 7" in result.detail
        assert "migrate" not in kinds(scene)

    def test_who_stands_down_watches_and_writes_nothing_more(self) -> None:
        scene = Scene()
        assert isinstance(scene.start(), MigrationRecord)
        told = len(scene.ledger.states())
        scene.executor.stand_down()

        scene.pass_time(60)

        assert scene.executor.active() == ()
        assert len(scene.ledger.states()) == told

    def test_a_new_tenure_reads_the_ledger_anew_before_it_starts(self) -> None:
        """What this controller knew from an earlier tenure is dropped: the ledger holds what others did meanwhile."""
        scene = Scene()
        record = scene.start()
        assert isinstance(record, MigrationRecord)
        scene.executor.stand_down()
        scene.lease.epoch += 2

        second = scene.start()

        assert isinstance(second, Refusal)
        assert second.code is Code.VM_BUSY
        assert [(r.id, r.adopted) for r in scene.executor.active()] == [(record.id, True)]
        assert kinds(scene).count("migrate") == 1

    def test_a_frozen_process_does_not_start_late(self) -> None:
        """Stopped between intent and call for longer than the bound, on the monotonic clock."""
        scene = Scene()
        real = scene.ledger.open_intent

        def freeze(record: MigrationRecord) -> None:
            real(record)
            scene.world.clock.sleep(SETTINGS.start_before_seconds)
            scene.world.clock.offset -= 3600  # the wall clock would not tell

        scene.ledger.open_intent = freeze  # type: ignore[method-assign]
        result = scene.start()

        assert isinstance(result, Refusal)
        assert result.code is Code.PLAN_EXPIRED
        assert "migrate" not in kinds(scene)
        assert state(scene) is MigrationState.ABANDONED

    def test_an_expired_plan_is_not_started(self) -> None:
        scene = Scene()
        plan = one_step_plan(scene.world, expires_in_seconds=5)
        scene.world.clock.sleep(5)
        result = scene.start(plan)

        assert isinstance(result, Refusal)
        assert result.code is Code.PLAN_EXPIRED

    def test_a_step_of_another_plan_is_not_started(self) -> None:
        scene = Scene()
        plan = one_step_plan(scene.world)
        forged = replace(plan.steps[0], move=replace(plan.steps[0].move, destination="c"))
        result = scene.executor.start(forged, plan, facts=FACTS)

        assert isinstance(result, Refusal)
        assert result.code is Code.PLAN_STALE

    def test_one_vm_is_not_started_twice(self) -> None:
        scene = Scene()
        scene.started()
        result = scene.start(one_step_plan(scene.world, destination="c"))

        assert isinstance(result, Refusal)
        assert result.code is Code.VM_BUSY
        assert kinds(scene).count("migrate") == 1

    def test_two_threads_start_one_vm_once(self) -> None:
        """The second comes while the first is between preflight and hand-over."""
        scene = Scene()
        scene.executor.adopt()
        results: list[object] = []

        def meanwhile() -> None:
            other = threading.Thread(target=lambda: results.append(scene.start()))
            other.start()
            other.join(5)

        scene.world.before_migrate = meanwhile
        results.append(scene.start())

        assert sorted(type(r).__name__ for r in results) == ["MigrationRecord", "Refusal"]
        assert kinds(scene).count("migrate") == 1

    def test_a_call_that_was_not_handed_over_is_abandoned(self) -> None:
        scene = Scene()
        scene.world.migrate_fails = HostUnreachableError("a", "no connection")
        result = scene.start()

        assert isinstance(result, Refusal)
        assert result.code is Code.HOST_UNREACHABLE
        assert scene.ledger.states() == ["intent", "abandoned"]

    def test_missing_rights_are_told_as_such(self) -> None:
        scene = Scene()
        scene.world.migrate_fails = HostRefusedError("a", "access denied", 88)
        result = scene.start()

        assert isinstance(result, Refusal)
        assert result.code is Code.RIGHTS


class TestSuccess:
    def test_arrives_and_gets_its_autostart_back(self) -> None:
        scene = Scene()
        scene.started()
        scene.world.run(iteration=1, remaining_bytes=GIB)
        scene.pass_time(2)
        scene.world.arrive()
        scene.executor.tick()

        record = scene.ledger.last()
        assert record.state is MigrationState.SUCCEEDED
        assert record.autostart_restored is True
        assert scene.world.domains[("b", VM)].autostart is True
        assert record.completion is not None
        assert record.completion.downtime_seconds == 0.1
        assert record.seconds == pytest.approx(2.0)
        assert scene.executor.active() == ()

    def test_figures_of_an_earlier_migration_are_not_taken_for_this_ones(self) -> None:
        """libvirt's events are kept per host; the one of this migration may be missed."""
        scene = Scene()
        scene.world.completion_of = Completion(total_seconds=77.0)
        scene.started()
        scene.world.arrive()
        scene.world.completion_of = Completion(total_seconds=77.0)
        scene.executor.tick()
        assert scene.ledger.last().completion is None

    def test_the_verdict_comes_with_the_first_look_after_the_return(self) -> None:
        scene = Scene()
        scene.started()
        scene.world.arrive()
        scene.executor.tick()
        assert state(scene) is MigrationState.SUCCEEDED

    def test_an_error_from_the_call_does_not_make_it_a_failure(self) -> None:
        """Success is where the VM runs, not what the call returned."""
        scene = Scene()
        scene.started()
        scene.world.arrive(error=HostRefusedError("a", "Unable to read from monitor", 38))
        scene.executor.tick()
        assert state(scene) is MigrationState.SUCCEEDED

    def test_a_call_without_error_does_not_make_it_a_success(self) -> None:
        scene = Scene()
        scene.started()
        scene.world.run()
        scene.world.roll_back()
        scene.world.jobs[0].error = None
        scene.executor.tick()
        assert state(scene) is MigrationState.FAILED

    def test_autostart_off_is_not_touched(self) -> None:
        scene = Scene()
        off = replace(FACTS, autostart=False)
        scene.world.facts[VM] = off
        scene.world.may_autostart = False
        scene.start(facts=off)
        scene.world.arrive()
        scene.executor.tick()

        assert state(scene) is MigrationState.SUCCEEDED
        assert "autostart" not in kinds(scene)
        assert scene.ledger.last().autostart_restored is None

    def test_autostart_that_cannot_be_set_at_once_is_tried_again(self) -> None:
        scene = Scene()
        scene.started()
        scene.world.arrive()
        scene.world.autostart_fails = HostUnreachableError("b", "no answer")
        scene.pass_time(3)
        assert state(scene) is MigrationState.RUNNING
        assert "autostart not restored yet" in scene.ledger.last().reason
        scene.world.autostart_fails = None
        scene.pass_time(1)

        assert state(scene) is MigrationState.SUCCEEDED
        assert scene.world.domains[("b", VM)].autostart is True

    def test_autostart_that_can_never_be_set_is_said_so(self) -> None:
        scene = Scene()
        scene.started()
        scene.world.arrive()
        scene.world.autostart_fails = HostRefusedError("b", "access denied", 88)
        scene.pass_time(SETTINGS.settle_seconds + 2)

        record = scene.ledger.last()
        assert record.state is MigrationState.SUCCEEDED
        assert record.autostart_restored is False
        assert "access denied" in record.reason

    def test_a_wall_clock_step_does_not_change_the_duration(self) -> None:
        scene = Scene()
        scene.started()
        scene.world.run()
        scene.pass_time(4)
        scene.world.clock.offset -= 7200
        scene.world.arrive()
        scene.executor.tick()
        assert scene.ledger.last().seconds == pytest.approx(4.0)


class TestTuning:
    def test_downtime_climbs_with_the_iterations_to_the_limit(self) -> None:
        scene = Scene()
        scene.started(one_step_plan(scene.world, options=MigrationOptions(max_downtime_seconds=0.6)))
        for iteration in (1, 2, 3, 4, 5, 6, 7, 8):
            scene.world.run(iteration=iteration, remaining_bytes=GIB - iteration * MIB)
            scene.pass_time(1)
        assert [c[2] for c in scene.world.calls if c[0] == "downtime"] == ["0.1", "0.2", "0.3", "0.4", "0.5", "0.6"]

    def test_a_transfer_that_does_not_converge_is_aborted(self) -> None:
        settings = replace(SETTINGS, stall_seconds=30.0)
        scene = Scene(settings)
        scene.started(one_step_plan(scene.world, predicted=cost(upper=100.0)))
        for iteration in range(1, 61):
            scene.world.run(iteration=iteration, remaining_bytes=100 * MIB, processed_bytes=GIB * iteration)
            scene.pass_time(1)
            if scene.world.job().aborts:
                break

        assert state(scene) is MigrationState.ABORTING
        assert 30 <= iteration <= 40
        assert "does not converge" in scene.ledger.last().reason
        scene.world.roll_back(HostRefusedError("a", "operation aborted", 78))
        scene.executor.tick()
        assert state(scene) is MigrationState.ABORTED
        assert "does not converge" in scene.ledger.last().reason

    def test_past_its_deadline_it_is_aborted_and_the_effect_awaited(self) -> None:
        """3 × 20 s predicted; the deadline counts from the hand-over."""
        scene = Scene()
        scene.started()
        scene.world.run(iteration=1, remaining_bytes=GIB)
        scene.pass_time(59)
        assert state(scene) is MigrationState.RUNNING
        scene.pass_time(2)
        assert state(scene) is MigrationState.ABORTING
        assert scene.ledger.states()[-2:] == ["running", "aborting"]
        assert kinds(scene)[-2:] == ["update", "abort"]  # the order is durable first
        scene.pass_time(10)
        assert state(scene) is MigrationState.ABORTING
        assert scene.world.job().aborts == 1

    def test_an_abort_without_effect_is_stuck_and_keeps_its_slots(self) -> None:
        scene = Scene()
        scene.started()
        scene.world.run(iteration=1, remaining_bytes=GIB)
        scene.pass_time(61 + SETTINGS.abort_patience_seconds + 1)
        assert state(scene) is MigrationState.STUCK
        assert len(scene.executor.active()) == 1
        scene.world.arrive()
        scene.executor.tick()
        assert state(scene) is MigrationState.SUCCEEDED

    def test_an_abort_that_could_not_be_delivered_is_repeated(self) -> None:
        scene = Scene()
        scene.started()
        scene.world.run(iteration=1, remaining_bytes=GIB)
        scene.world.abort_fails = HostUnreachableError("a", "no answer")
        scene.pass_time(62)
        assert state(scene) is MigrationState.ABORTING
        assert scene.world.job().aborts == 0
        scene.world.abort_fails = None
        scene.pass_time(6)
        assert scene.world.job().aborts == 1

    def test_an_abort_that_loses_the_race_is_a_success(self) -> None:
        scene = Scene()
        record = scene.started()
        scene.world.run(iteration=2, remaining_bytes=MIB)
        scene.executor.tick()
        assert isinstance(scene.executor.abort(record.vm_uuid, "operator"), MigrationRecord)
        scene.world.arrive()
        scene.executor.tick()
        assert state(scene) is MigrationState.SUCCEEDED
        assert scene.world.domains[("b", VM)].autostart is True

    def test_post_copy_is_never_aborted(self) -> None:
        scene = Scene()
        record = scene.started(one_step_plan(scene.world, options=MigrationOptions(postcopy=True)))
        scene.world.run(iteration=2, remaining_bytes=GIB, postcopy=True)
        scene.pass_time(5000, every=50)

        assert scene.world.job().aborts == 0
        assert state(scene) is MigrationState.RUNNING
        refused = scene.executor.abort(record.vm_uuid, "operator")
        assert isinstance(refused, Refusal)
        assert scene.world.job().aborts == 0

    def in_failed_post_copy(self) -> Scene:
        """As libvirt shows it: both sides failed, its call returned, and the job still there."""
        scene = Scene()
        scene.started(one_step_plan(scene.world, options=MigrationOptions(postcopy=True)))
        scene.world.run(iteration=2, remaining_bytes=GIB, postcopy=True)
        scene.pass_time(2)
        scene.world.domains[("a", VM)].state = DomainState.PAUSED_POSTCOPY_FAILED
        scene.world.domains[("b", VM)].state = DomainState.RUNNING_POSTCOPY_FAILED
        return scene

    def test_failed_post_copy_that_goes_on_copying_is_waited_for(self) -> None:
        scene = self.in_failed_post_copy()
        for left in range(600, 0, -1):
            scene.world.run(iteration=2, remaining_bytes=left * MIB, postcopy=True)
            scene.pass_time(2)
        assert state(scene) is MigrationState.RUNNING
        scene.world.arrive(HostRefusedError("a", "operation failed: Lost connection to destination host", 9))
        scene.pass_time(2)

        assert state(scene) is MigrationState.SUCCEEDED

    def test_failed_post_copy_that_copies_nothing_is_broken(self) -> None:
        scene = self.in_failed_post_copy()
        scene.pass_time(3 * SETTINGS.settle_seconds)

        assert state(scene) is MigrationState.POSTCOPY_BROKEN
        assert scene.ledger.last().postcopy
        assert scene.world.job().aborts == 0

    def test_post_copy_that_begins_between_order_and_repeat_is_left_alone(self) -> None:
        scene = Scene()
        scene.started()
        scene.world.run(iteration=1, remaining_bytes=GIB)
        scene.world.abort_fails = HostUnreachableError("a", "no answer")
        scene.pass_time(62)
        scene.world.abort_fails = None
        scene.world.run(iteration=1, remaining_bytes=GIB, postcopy=True)
        scene.pass_time(30)
        assert scene.world.job().aborts == 0

    def test_without_ledger_there_is_no_abort(self) -> None:
        scene = Scene()
        scene.started()
        scene.world.run(iteration=1, remaining_bytes=GIB)
        scene.executor.tick()
        scene.ledger.broken = True
        scene.pass_time(120)
        assert scene.world.job().aborts == 0
        scene.ledger.broken = False
        scene.pass_time(2)
        assert scene.world.job().aborts == 1

    def test_abort_of_what_does_not_move_is_refused(self) -> None:
        refused = Scene().executor.abort(VM, "operator")
        assert isinstance(refused, Refusal)


class TestTrouble:
    def test_a_silent_source_leaves_it_unobserved_with_its_slots(self) -> None:
        scene = Scene()
        scene.started()
        scene.world.run(iteration=1, remaining_bytes=GIB)
        scene.executor.tick()
        scene.world.silent = {"a"}
        scene.pass_time(40)
        assert state(scene) is MigrationState.UNOBSERVED
        assert len(scene.executor.active()) == 1
        scene.world.silent = set()
        scene.executor.tick()
        assert state(scene) is MigrationState.RUNNING

    def test_a_source_that_died_is_lost_after_a_while(self) -> None:
        scene = Scene()
        scene.started()
        scene.world.run(iteration=1, remaining_bytes=GIB)
        scene.executor.tick()
        scene.world.silent = {"a"}
        scene.world.domains.pop(("b", VM))  # the destination noticed and dropped its copy
        scene.pass_time(SETTINGS.lost_source_seconds - 5, every=5)
        assert state(scene) is MigrationState.UNOBSERVED
        scene.pass_time(10)
        assert state(scene) is MigrationState.LOST_SOURCE

    def test_arrived_from_a_silent_source_is_believed_when_both_answer(self) -> None:
        """However long it takes: success is asked of both hosts."""
        scene = Scene()
        scene.started()
        scene.world.run(iteration=1, remaining_bytes=GIB)
        scene.executor.tick()
        scene.world.silent = {"a"}
        scene.world.arrive()
        scene.pass_time(3000, every=30)
        assert state(scene) is MigrationState.UNOBSERVED
        scene.world.silent = set()
        scene.executor.tick()
        assert state(scene) is MigrationState.SUCCEEDED

    @pytest.mark.parametrize(("removed", "verdict"), [("a", MigrationState.SUCCEEDED), ("b", MigrationState.FAILED)])
    def test_a_host_taken_out_of_the_cluster_does_not_keep_it_open(self, removed: str, verdict: MigrationState) -> None:
        scene = Scene()
        scene.started()
        scene.world.run(iteration=1, remaining_bytes=GIB)
        if removed == "a":
            scene.world.arrive()
        else:
            scene.world.roll_back()
        scene.world.removed = {removed}
        scene.restart()
        scene.pass_time(SETTINGS.lost_source_seconds + 5, every=5)
        assert state(scene) is verdict

    def test_a_source_that_comes_back_empty_was_lost(self) -> None:
        scene = Scene()
        scene.started()
        scene.world.run(iteration=1, remaining_bytes=GIB)
        scene.executor.tick()
        scene.world.silent = {"a"}
        scene.pass_time(SETTINGS.settle_seconds + 10)
        scene.world.silent = set()
        scene.world.roll_back()
        scene.world.domains[("a", VM)].state = DomainState.SHUTOFF
        scene.pass_time(2)
        assert state(scene) is MigrationState.LOST_SOURCE

    def test_a_destination_that_died_fails_it_on_the_source(self) -> None:
        scene = Scene()
        scene.started()
        scene.world.run(iteration=1, remaining_bytes=GIB)
        scene.executor.tick()
        scene.world.silent = {"b"}
        scene.world.roll_back()
        scene.pass_time(SETTINGS.settle_seconds - 3)
        assert state(scene) is MigrationState.UNOBSERVED
        scene.pass_time(5)
        record = scene.ledger.last()
        assert record.state is MigrationState.FAILED
        assert "destination does not answer" in record.reason

    def test_a_refusal_of_libvirt_is_told_by_its_code(self) -> None:
        """The guard blocks such a pair instead of blaming the host; it reads the beginning of the reason."""
        scene = Scene()
        scene.started()
        scene.world.roll_back(HostRefusedError("a", "disk is not on shared storage", 81))
        scene.executor.tick()
        record = scene.ledger.last()
        assert record.state is MigrationState.FAILED
        assert record.reason.startswith("libvirt_refused: ")

    def test_a_job_lock_that_was_not_had_is_no_failure(self) -> None:
        scene = Scene()
        scene.started()
        scene.world.roll_back(HostRefusedError("a", "cannot acquire state change lock", 68))
        scene.executor.tick()
        assert state(scene) is MigrationState.ABANDONED
        assert scene.ledger.last().reason.startswith("vm_busy")

    def test_an_abort_by_somebody_else_blames_nobody(self) -> None:
        scene = Scene()
        scene.started()
        scene.world.run(iteration=1, remaining_bytes=GIB)
        scene.executor.tick()
        scene.world.roll_back(HostRefusedError("a", "operation aborted: canceled by client", 78))
        scene.executor.tick()
        assert state(scene) is MigrationState.ABORTED
        assert "another client" in scene.ledger.last().reason

    def test_a_guest_that_shuts_down_is_nobodys_failure(self) -> None:
        scene = Scene()
        scene.started()
        scene.world.run(iteration=1, remaining_bytes=GIB)
        scene.executor.tick()
        scene.world.roll_back()
        scene.world.domains[("a", VM)].state = DomainState.SHUTOFF
        scene.pass_time(2)
        assert state(scene) is MigrationState.VM_STOPPED

    def test_paused_on_arrival_is_degraded_and_not_resumed(self) -> None:
        scene = Scene()
        scene.started()
        scene.world.arrive(state=DomainState.PAUSED)
        scene.executor.tick()
        assert state(scene) is MigrationState.RUNNING
        scene.pass_time(SETTINGS.settle_seconds + 1)
        assert state(scene) is MigrationState.DEGRADED
        assert scene.world.domains[("b", VM)].state is DomainState.PAUSED
        assert scene.world.domains[("b", VM)].autostart is True

    def test_doubled_only_if_it_stays_so(self) -> None:
        """Both hosts are read one after the other; a switch in between looks like two copies for one look."""
        scene = Scene()
        scene.started()
        scene.world.run()
        scene.world.roll_back()
        scene.world.domains[("b", VM)] = Domain(DomainState.RUNNING)
        scene.executor.tick()
        assert state(scene) is MigrationState.RUNNING
        scene.pass_time(SETTINGS.settle_seconds + 1)
        assert state(scene) is MigrationState.DUPLICATED

    def test_on_no_host_is_missing(self) -> None:
        scene = Scene()
        scene.started()
        scene.world.run()
        scene.world.roll_back()
        scene.world.domains.clear()
        scene.pass_time(SETTINGS.settle_seconds + 2)
        assert state(scene) is MigrationState.MISSING

    def test_found_on_a_third_host_is_not_missing(self) -> None:
        scene = Scene()
        scene.started()
        scene.world.run()
        scene.world.roll_back()
        scene.world.domains.clear()
        scene.world.domains[("c", VM)] = Domain(DomainState.RUNNING)
        scene.pass_time(SETTINGS.settle_seconds + 2)
        record = scene.ledger.last()
        assert record.state is MigrationState.FAILED
        assert "runs on c" in record.reason

    def test_not_called_missing_while_a_host_is_silent(self) -> None:
        scene = Scene()
        scene.started()
        scene.world.run()
        scene.world.roll_back()
        scene.world.domains.clear()
        scene.world.silent = {"c"}
        scene.pass_time(SETTINGS.settle_seconds + 20)
        assert state(scene) is MigrationState.UNOBSERVED

    def test_a_verdict_that_could_not_be_written_is_written_later(self) -> None:
        scene = Scene()
        scene.started()
        scene.ledger.broken = True
        scene.world.arrive()
        scene.executor.tick()
        assert state(scene) is MigrationState.RUNNING
        scene.ledger.broken = False
        scene.executor.tick()
        assert state(scene) is MigrationState.SUCCEEDED

    def test_one_odd_migration_does_not_stop_the_others(self) -> None:
        scene = Scene()
        scene.started()
        scene.world.facts[OTHER] = replace(FACTS, uuid=OTHER, name="db")
        scene.world.domains[("c", OTHER)] = Domain(DomainState.RUNNING)
        plan = one_step_plan(scene.world, vm_uuid=OTHER, source="c")
        other = scene.executor.start(plan.steps[0], plan, facts=scene.world.facts[OTHER])
        assert isinstance(other, MigrationRecord)
        real = scene.executor._courses._read.progress  # type: ignore[attr-defined]

        def odd(host: str, vm_uuid: str) -> object:
            if vm_uuid == VM:
                raise ZeroDivisionError("a bug")
            return real(host, vm_uuid)

        scene.executor._courses._read.progress = odd  # type: ignore[attr-defined, method-assign]
        scene.world.jobs[1].returned = True
        scene.world.domains[("b", OTHER)] = scene.world.domains.pop(("c", OTHER))
        scene.executor.tick()

        assert [r.vm_uuid for r in scene.executor.active()] == [VM]

    def test_hostile_text_from_libvirt_is_escaped(self) -> None:
        scene = Scene()
        scene.started()
        scene.world.roll_back(HostRefusedError("a", "evil\x1b[2J\nfake line", 1))
        scene.executor.tick()
        assert "\x1b" not in scene.ledger.last().reason
        assert "\n" not in scene.ledger.last().reason


class TestAdopt:
    def test_a_running_job_is_watched_and_not_started_again(self) -> None:
        scene = Scene()
        scene.started()
        scene.world.run(iteration=2, remaining_bytes=GIB, elapsed_seconds=12.0)
        (record,) = scene.restart()

        assert record.state is MigrationState.RUNNING
        assert record.adopted
        assert scene.ledger.last().adopted
        assert kinds(scene).count("migrate") == 1
        scene.world.arrive()
        scene.executor.tick()
        assert state(scene) is MigrationState.SUCCEEDED
        assert scene.world.domains[("b", VM)].autostart is True
        assert len(scene.ledger.rows) == 1

    def test_its_deadline_counts_from_the_jobs_own_age(self) -> None:
        scene = Scene()
        scene.started()
        scene.world.run(iteration=1, remaining_bytes=GIB, elapsed_seconds=50.0)
        scene.restart()
        scene.pass_time(8)
        assert state(scene) is MigrationState.RUNNING
        scene.pass_time(4)
        assert state(scene) is MigrationState.ABORTING

    def test_one_that_arrived_meanwhile_has_succeeded(self) -> None:
        scene = Scene()
        scene.started()
        scene.world.arrive()
        (record,) = scene.restart()
        assert record.state is MigrationState.SUCCEEDED
        assert scene.world.domains[("b", VM)].autostart is True

    def test_one_that_was_rolled_back_meanwhile_has_failed(self) -> None:
        scene = Scene()
        scene.started()
        scene.world.run()
        scene.world.roll_back()
        (record,) = scene.restart()
        assert record.state is MigrationState.RUNNING
        scene.pass_time(SETTINGS.settle_seconds + 1)
        assert state(scene) is MigrationState.FAILED

    def test_an_intent_without_a_job_is_abandoned_only_when_it_can_no_longer_begin(self) -> None:
        scene = Scene()
        scene.world.crash_after = 1
        with pytest.raises(BaseException, match="intent"):
            scene.start()
        (record,) = scene.restart()
        assert record.state is MigrationState.INTENT
        bound = SETTINGS.start_before_seconds + SETTINGS.lease_seconds
        scene.pass_time(bound - 2)
        assert state(scene) is MigrationState.INTENT
        refused = scene.start()
        assert isinstance(refused, Refusal)
        assert refused.code is Code.VM_BUSY
        scene.pass_time(3)
        assert state(scene) is MigrationState.ABANDONED
        assert "migrate" not in kinds(scene)

    def test_an_intent_whose_job_begins_after_all_is_watched(self) -> None:
        """The other controller was not dead, only slow."""
        scene = Scene()
        scene.world.crash_after = 2
        with pytest.raises(BaseException, match="migrate"):
            scene.start()
        (record,) = scene.restart()
        assert record.state is MigrationState.RUNNING
        assert record.started_at is not None

    def test_an_interrupted_abort_is_repeated(self) -> None:
        """It died between writing the order down and giving it."""
        scene = Scene()
        scene.started()
        scene.world.run(iteration=1, remaining_bytes=GIB, elapsed_seconds=1.0)
        scene.executor.tick()
        scene.world.crash_after = scene.world.effects + 1
        with pytest.raises(BaseException, match="aborting"):
            scene.executor.abort(VM, "operator")
        assert scene.world.job().aborts == 0
        scene.restart()
        scene.executor.tick()
        assert scene.world.job().aborts == 1
        scene.world.roll_back()
        scene.pass_time(SETTINGS.settle_seconds + 1)
        assert state(scene) is MigrationState.ABORTED
        assert scene.ledger.last().reason.startswith("operator")

    def test_silent_hosts_are_waited_for(self) -> None:
        scene = Scene()
        scene.started()
        scene.world.silent = {"a", "b"}
        (record,) = scene.restart()
        assert record.state is MigrationState.UNOBSERVED

    def test_foreign_rows_are_left_alone(self) -> None:
        scene = Scene()
        record = scene.started()
        scene.ledger.rows[record.id].append(replace(record, ours=False))
        assert scene.restart() == ()

    def test_start_adopts_first(self) -> None:
        scene = Scene()
        scene.started()
        scene.executor = scene.build()
        refused = scene.start()
        assert isinstance(refused, Refusal)
        assert refused.code is Code.VM_BUSY


class TestWatching:
    def test_progress_is_the_last_reading(self) -> None:
        scene = Scene()
        scene.started()
        assert scene.executor.progress(VM) is None
        scene.world.run(iteration=3, remaining_bytes=5)
        scene.executor.tick()
        progress = scene.executor.progress(VM)
        assert progress is not None
        assert progress.iteration == 3
        assert scene.executor.progress(OTHER) is None

    def test_run_watch_ends_and_reaches_the_verdict(self) -> None:
        scene = Scene(replace(SETTINGS, poll_seconds=0.01))
        scene.started()
        scene.world.arrive()
        stop = threading.Event()
        thread = threading.Thread(target=scene.executor.run_watch, args=(stop,))
        thread.start()
        for _ in range(500):
            if not scene.executor.active():
                break
            stop.wait(0.01)
        stop.set()
        thread.join(5)
        assert not thread.is_alive()
        assert state(scene) is MigrationState.SUCCEEDED

    def test_wait_returns_at_once_after_a_start(self) -> None:
        scene = Scene()
        assert scene.executor.wait(0.0) is False
        scene.started()
        assert scene.executor.wait(0.0) is True

    def test_settings_have_sane_defaults(self) -> None:
        assert ActSettings().lease_seconds >= ActSettings().start_before_seconds
