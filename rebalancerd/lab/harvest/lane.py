"""A lane of the harvest: two hosts between which one guest (or two) is sent back and forth, block after block."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from rebalancerd.act.libvirt_write import LibvirtWrite
from rebalancerd.cluster.cost import MigrationOptions
from rebalancerd.cluster.dirty import DirtyCurve
from rebalancerd.cluster.snapshot import Snapshot
from rebalancerd.cluster.units import MIB
from rebalancerd.lab.commands import LabError
from rebalancerd.lab.harvest.agenda import Block, Item
from rebalancerd.lab.harvest.bystander import bystanders
from rebalancerd.lab.harvest.machine import Surroundings, between, read_machine
from rebalancerd.lab.harvest.measure import Measuring, known_before
from rebalancerd.lab.harvest.rowfile import RowFile
from rebalancerd.lab.harvest.run import Journey, Mover
from rebalancerd.lab.harvest.setting import Load, Setting
from rebalancerd.lab.lab import Lab
from rebalancerd.lab.spec import GuestSpec
from rebalancerd.observe.libvirt_probe import LibvirtProbe
from rebalancerd.observe.libvirt_read import LibvirtRead
from rebalancerd.observe.settings import HostSettings

FILL_MIB_PER_SECOND = 60.0  # a guest fills its working set at 80 MiB/s
SETTLE_SECONDS = 1.0
BOOT_SECONDS = 90.0
CUT_OFF_REPEATS = 2  # a setting that ran into its deadline that often tells no times: its other repeats are left out
ANSWER_SECONDS = 12.0
ATTEMPTS = 3  # of an item, where a guest dies or does not answer
FLUSH_MS = 3  # without it the emulator loses pages in a migration of several rounds


class Lane:
    """Harvests its share of the blocks on its two hosts.

    Args:
        lab: that is up; ``hosts`` are two of its hosts that no other lane uses.
        settings: how the daemon's parts reach those two.
        rows: where the rows go.
        turn: held during a migration, so that those of different lanes do not disturb each other.
        over: whether no more rows are to be begun.
        tell: told what happens, in a few words.
    """

    def __init__(
        self,
        lab: Lab,
        hosts: tuple[str, str],
        settings: tuple[HostSettings, ...],
        rows: RowFile,
        *,
        directory: Path,
        turn: threading.Lock,
        over: Callable[[], bool],
        tell: Callable[[str], None],
    ) -> None:
        self._lab, self._hosts, self._settings, self._rows = lab, hosts, settings, rows
        self._directory, self._turn, self._over, self._tell = directory, turn, over, tell
        self._read: LibvirtRead
        self._probe: LibvirtProbe
        self._mover: Mover
        self._at = hosts[0]  # where its guests are

    def run(self, blocks: Iterable[Block], read: LibvirtRead, probe: LibvirtProbe, write: LibvirtWrite) -> None:
        """Do the blocks until time is over."""
        self._read, self._probe, self._mover = read, probe, Mover(self._lab, read, write)
        for block in blocks:
            if self._over():
                return
            if all(self._is_done(item) for item in block.items):
                continue
            try:
                self._block(block)
            except LabError as error:
                self._tell(f"block {block.number} given up: {error}")
            finally:
                self._remove_guests()

    def _is_done(self, item: Item) -> bool:
        """Whether every repeat is on file, or as many as it takes were cut off."""
        repeats = [[self._rows.outcomes.get(row_id) for row_id in _row_ids(item, r)] for r in range(item.repeats)]
        cut_off = sum(all(outcome == "deadline" for outcome in outcomes) for outcomes in repeats)
        return cut_off >= CUT_OFF_REPEATS or all(None not in outcomes for outcomes in repeats)

    def _block(self, block: Block) -> None:
        self._boot(block)
        for item in block.items:
            for attempt in range(1, ATTEMPTS + 1):
                if self._over() or self._is_done(item):
                    break
                try:
                    self._item(item)
                    break
                except LabError as error:
                    self._tell(f"{item.key}: attempt {attempt}: {error}")
                    self._remove_guests()
                    self._boot(block)

    def _pid_of(self, host: str, vm_uuid: str) -> int | None:
        """QEMU's process of a guest on a host, as libvirt noted it; None if it did not."""
        for guest in self._lab.guests:
            if self._lab.spec.guest_uuid(guest.name) == vm_uuid:
                try:
                    return int((self._lab.host(host).directory / "run" / "qemu" / f"{guest.name}.pid").read_text())
                except (OSError, ValueError):
                    return None
        return None

    def _names(self, guests: int) -> list[str]:
        return [f"{self._hosts[0]}-guest{number}" for number in range(1, guests + 1)]

    def _boot(self, block: Block) -> None:
        self._at = self._hosts[0]
        for host in self._hosts:
            self._lab.shape(host, None)
        for name in self._names(block.guests):
            self._lab.add_guest(GuestSpec(name=name, host=self._at, memory_mib=block.memory_mib, flush_ms=FLUSH_MS))
        for name in self._names(block.guests):
            self._lab.wait_booted(name, BOOT_SECONDS)

    def _remove_guests(self) -> None:
        for guest in self._lab.guests:
            if guest.name.startswith(f"{self._hosts[0]}-guest"):
                self._lab.remove_guest(guest.name)

    def _item(self, item: Item) -> None:
        setting, names = item.setting, self._names(item.guests)
        for host in self._hosts:
            self._lab.shape(host, setting.link_mbit)
        for name, load in zip(names, setting.loads, strict=True):
            self._lab.set_load(name, load.phases, repeat=load.repeat, timeout=ANSWER_SECONDS)
        most = max(phase.working_set_mib for load in setting.loads for phase in load.phases)
        time.sleep(SETTLE_SECONDS + most / FILL_MIB_PER_SECOND)
        hosts = [replace(host, link_bytes_per_second=setting.link_bytes_per_second) for host in self._settings]
        with closing(Measuring(hosts, self._read, self._probe, self._directory, self._pid_of)) as measuring:
            rounds = 2
            for repeat in range(item.repeats):
                if self._over() or self._is_done(item):
                    return
                if all(row_id in self._rows.outcomes for row_id in _row_ids(item, repeat)):
                    continue
                self._migration(item, repeat, measuring, rounds)
                rounds = 1

    def _migration(self, item: Item, repeat: int, measuring: Measuring, rounds: int) -> None:
        """One migration of every guest of the setting, and its rows."""
        setting, source = item.setting, self._at
        destination = next(host for host in self._hosts if host != source)
        options = _options(setting)
        journeys = [
            Journey(name=name, vm_uuid=self._lab.spec.guest_uuid(name), load=load, options=options)
            for name, load in zip(self._names(item.guests), setting.loads, strict=True)
        ]
        cores = {source: setting.source_bystander_cores, destination: setting.destination_bystander_cores}
        with bystanders(self._lab, cores):
            for journey in journeys:
                journey.steady = self._mover.progress(journey.name, source)
            measuring.probe(source, [journey.vm_uuid for journey in journeys], rounds)
            with self._turn:
                snapshot = measuring.freshen()
                curves = {j.vm_uuid: measuring.exact_curve(j.vm_uuid, setting.memory_mib * MIB) for j in journeys}
                started_at, group = time.time(), self._lab.cgroup
                before = read_machine(group)
                self._mover.move(journeys, source, destination, setting.deadline_seconds)
                surroundings = between(before, read_machine(group))
        rows = [
            self._row(
                item,
                repeat,
                number,
                journey,
                exact=curves[journey.vm_uuid],
                snapshot=snapshot,
                surroundings=surroundings,
                started_at=started_at,
            )
            for number, journey in enumerate(journeys)
        ]
        self._rows.append(*rows)
        for journey in journeys:
            self._tell(
                f"{item.key} {repeat + 1}/{item.repeats} {journey.load.family}: {journey.outcome} {journey.seconds:.1f} s"
            )
        if any(row["panicked"] for row in rows):
            raise LabError("the emulator lost a page: its kernel panicked")
        places = {journey.host for journey in journeys}
        if len(places) != 1:
            raise LabError("its guests are on different hosts now")
        (self._at,) = places
        if any(journey.outcome == "failed" for journey in journeys):
            raise LabError(f"a migration failed: {'; '.join(note for j in journeys for note in j.notes)}")

    def _row(
        self,
        item: Item,
        repeat: int,
        number: int,
        journey: Journey,
        *,
        exact: DirtyCurve | None,
        snapshot: Snapshot,
        surroundings: Surroundings,
        started_at: float,
    ) -> dict[str, object]:
        setting, done, seen = item.setting, journey.completion, journey.seen
        destination = next(host for host in self._hosts if host != self._at)
        known = known_before(
            snapshot,
            journey.vm_uuid,
            destination,
            journey.options,
            link_share=1.0 / len(setting.loads),
            exact=exact,
        )
        sent = done.transferred_bytes if done is not None else None if seen is None else seen.processed_bytes
        total = done.total_seconds if done is not None else None
        panicked = self._lab.panicked(journey.name)
        return {
            "id": _row_ids(item, repeat)[number],
            "setting": item.key if item.guests == 1 else f"{item.key}-{number + 1}",
            "repeat": repeat + 1,
            "family": journey.load.family,
            "started_at": round(started_at, 1),
            "concurrent": len(setting.loads),
            **known,
            "deadline_seconds": setting.deadline_seconds,
            "outcome": journey.outcome,
            "seconds": journey.seconds,
            "total_seconds": total,
            "downtime_seconds": None if done is None else done.downtime_seconds,
            "bytes": sent,
            "iterations": done.iterations if done is not None else None if seen is None else seen.iteration,
            "throttle": done.throttle if done is not None else None if seen is None else seen.throttle,
            "slowdown": None if panicked else journey.slowdown(),
            "link_reached_bytes_per_second": sent / total if sent and total else None,
            "other_cpu_cores": surroundings.other_cpu_cores,
            "stolen_cores": surroundings.stolen_cores,
            "pressure": surroundings.pressure,
            "load1": surroundings.load1,
            "panicked": panicked,
            "disturbed": surroundings.disturbed,
            "note": "; ".join(journey.notes)[:200],
            **_truth(setting, journey.load),
        }


def _truth(setting: Setting, load: Load) -> dict[str, object]:
    first = load.phases[0]
    return {
        "order": first.order,
        "working_set_mib": first.working_set_mib,
        "dirty_mib_per_second": first.dirty_mib_per_second,
        "cpu_percent": first.cpu_percent,
        "phases": len(load.phases),
        "source_bystander_cores": setting.source_bystander_cores,
        "destination_bystander_cores": setting.destination_bystander_cores,
    }


def _options(setting: Setting) -> MigrationOptions:
    return MigrationOptions(
        max_downtime_seconds=setting.max_downtime_seconds,
        bandwidth_bytes_per_second=None if setting.bandwidth_mib is None else float(setting.bandwidth_mib * MIB),
        auto_converge=setting.auto_converge,
        parallel=setting.parallel,
    )


def _row_ids(item: Item, repeat: int | None = None) -> list[str]:
    """Names of an item's rows: all, or those of one repeat."""
    repeats = range(item.repeats) if repeat is None else (repeat,)
    ends = [""] if item.guests == 1 else [f"-{number + 1}" for number in range(item.guests)]
    return [f"{item.key}-r{r + 1}{end}" for r in repeats for end in ends]
