"""Migrations of the harvest, one or two at once: from hand-over to the return of the call, or to the deadline and the abort."""

from __future__ import annotations

import time
import uuid as uuids
from collections.abc import Sequence
from dataclasses import dataclass, field

from rebalancerd.act.libvirt_write import LibvirtHandle, LibvirtWrite
from rebalancerd.cluster.cost import MigrationOptions
from rebalancerd.cluster.migration import Completion, MigrationRecord, MigrationState, Progress
from rebalancerd.cluster.vm import DomainState
from rebalancerd.lab.channel import GuestProgress
from rebalancerd.lab.commands import LabError
from rebalancerd.lab.harvest.setting import Load
from rebalancerd.lab.lab import Lab
from rebalancerd.observe.libvirt_read import LibvirtRead
from rebalancerd.ports import HostError

POLL_SECONDS = 0.02
LOOK_SECONDS = 2.0
ABORT_PATIENCE_SECONDS = 40.0
ANSWER_SECONDS = 6.0


def progress_unit(load: Load) -> str:
    """What the guest's progress is counted in: what its load asks for most, else turns of its main loop."""
    first = load.phases[0]
    if load.repeat:
        return "slices"
    if first.cpu_percent >= 50:
        return "work_seconds"
    return "dirtied_bytes" if first.dirty_mib_per_second >= 1 else "slices"


@dataclass(slots=True)
class Journey:
    """A guest on its way, and what came of it. ``steady`` is an earlier reading of its progress."""

    name: str
    vm_uuid: str
    load: Load
    options: MigrationOptions
    steady: GuestProgress | None = None
    before: GuestProgress | None = None
    after: GuestProgress | None = None
    handle: LibvirtHandle | None = None
    begun: float = 0.0
    ended: float | None = None
    ordered_abort: bool = False
    allowed: bool = False
    seen: Progress | None = None
    completion: Completion | None = None
    outcome: str = ""
    host: str = ""
    notes: list[str] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        """Hand-over to the return of the call."""
        assert self.ended is not None
        return self.ended - self.begun

    def slowdown(self) -> float | None:
        """Share of its progress that the guest lost over the migration's time; None where it did not answer.

        Progress that it would have made at its earlier rate, less what it made, over the same time; that loss in
        seconds over the migration's own time, for before and after it the guest runs as ever.
        """
        if self.steady is None or self.before is None or self.after is None:
            return None
        unit = progress_unit(self.load)
        steady = float(getattr(self.before, unit) - getattr(self.steady, unit)) / (self.before.at - self.steady.at)
        migrating = self.seconds
        if self.completion is not None and self.completion.total_seconds:
            migrating = self.completion.total_seconds
        if steady <= 0:
            return None
        made = float(getattr(self.after, unit) - getattr(self.before, unit)) / steady
        lost = (self.after.at - self.before.at) - made
        return min(1.0, max(0.0, lost / migrating))


class Mover:
    """Moves guests from one host of a lab to another with the daemon's own writer."""

    def __init__(self, lab: Lab, read: LibvirtRead, write: LibvirtWrite) -> None:
        self._lab, self._read, self._write = lab, read, write

    def progress(self, name: str, host: str) -> GuestProgress | None:
        """How far the guest is; None if it does not say."""
        try:
            return self._lab.progress(name, host=host, timeout=ANSWER_SECONDS)
        except LabError:
            return None

    def move(self, journeys: Sequence[Journey], source: str, destination: str, deadline_seconds: float) -> None:
        """Migrate all of them at once and fill in what came of it.

        Raises:
            LabError: an abort has no effect, or a guest runs on neither host or on both.
        """
        for journey in journeys:
            journey.before = self.progress(journey.name, source)
            self._allow(journey, source)
        for journey in journeys:
            self._begin(journey, source, destination)
        self._watch(journeys, source, deadline_seconds)
        for journey in journeys:
            self._conclude(journey, source, destination)

    def _allow(self, journey: Journey, source: str) -> None:
        try:
            self._write.set_max_downtime(source, journey.vm_uuid, journey.options.max_downtime_seconds)
            journey.allowed = True
        except HostError as error:
            journey.notes.append(f"downtime not set: {error}")

    def _begin(self, journey: Journey, source: str, destination: str) -> None:
        record = MigrationRecord(
            id=uuids.uuid4().hex,
            vm_uuid=journey.vm_uuid,
            vm_name=journey.name,
            source=source,
            destination=destination,
            state=MigrationState.INTENT,
            intent_at=time.time(),
            options=journey.options,
        )
        journey.begun = time.monotonic()
        try:
            journey.handle = self._write.migrate(record)
        except HostError as error:
            raise LabError(f"migration of {journey.name}: {error}") from error

        def note_end() -> None:
            journey.ended = time.monotonic()

        journey.handle.when_done(note_end)  # a look at the job may hang just then

    def _watch(self, journeys: Sequence[Journey], source: str, deadline_seconds: float) -> None:
        looked = 0.0
        while True:
            now = time.monotonic()
            open_ones = [journey for journey in journeys if journey.ended is None]
            if not open_ones:
                return
            if now - looked >= LOOK_SECONDS:
                looked = now
                for journey in open_ones:
                    self._look(journey, source)
            for journey in open_ones:
                late = now - journey.begun - deadline_seconds
                if late > 0 and not journey.ordered_abort:
                    journey.ordered_abort = True
                    self._abort(journey, source)
                if late > ABORT_PATIENCE_SECONDS:
                    raise LabError(f"migration of {journey.name}: its abort has no effect")
            time.sleep(POLL_SECONDS)

    def _look(self, journey: Journey, source: str) -> None:
        try:
            seen = self._read.progress(source, journey.vm_uuid)
        except HostError:
            return  # it may just have left
        journey.seen = seen or journey.seen

    def _abort(self, journey: Journey, source: str) -> None:
        try:
            self._write.abort(source, journey.vm_uuid)
        except HostError as error:
            journey.notes.append(f"abort: {error}")

    def _conclude(self, journey: Journey, source: str, destination: str) -> None:
        """Where it runs decides, as ever; what the call returned is a note."""
        assert journey.handle is not None
        error = journey.handle.error()
        states = {name: self._locate(name, journey.vm_uuid) for name in (source, destination)}
        running = [name for name, state in states.items() if state.is_running]
        if len(running) != 1:
            raise LabError(f"{journey.name} after its migration: {', '.join(f'{n} {s}' for n, s in states.items())}")
        journey.host = running[0]
        if journey.host == destination:
            journey.outcome = "succeeded"
            try:
                journey.completion = self._read.completion(destination, journey.vm_uuid)
            except HostError as failure:
                journey.notes.append(f"no figures: {failure}")
        else:
            journey.outcome = "deadline" if journey.ordered_abort else "failed"
            if error is not None and not journey.ordered_abort:
                journey.notes.append(str(error))
        journey.after = self.progress(journey.name, journey.host)

    def _locate(self, host: str, vm_uuid: str) -> DomainState:
        try:
            return self._read.locate(host, vm_uuid)
        except HostError as error:
            raise LabError(str(error)) from error
