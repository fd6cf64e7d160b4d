"""Where each VM stands, from what all hosts list: duplicates are named, incoming copies become migrations in flight."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from rebalancerd.cluster.migration import MigrationRecord
from rebalancerd.cluster.sample import DomainSample
from rebalancerd.cluster.snapshot import InFlight, Unknown
from rebalancerd.cluster.vm import DomainState

MIGRATING = frozenset({DomainState.PAUSED_MIGRATION, DomainState.PAUSED_POSTCOPY, DomainState.PAUSED_POSTCOPY_FAILED})
MIGRATION_JOBS = frozenset({"migration out", "migration in"})


@dataclass(frozen=True, slots=True)
class Sighting:
    """A domain as one host lists it; ``fresh`` False where the host does not answer and this is what it said last."""

    host: str
    domain: DomainSample
    fresh: bool


@dataclass(frozen=True, slots=True)
class Standing:
    """The one place of a VM; ``busy`` names what occupies it."""

    sighting: Sighting
    busy: str | None = None


@dataclass(frozen=True, slots=True)
class Placement:
    """All VMs by UUID, migrations under way, and what is contradictory.

    ``doubled``: VMs without an open migration of ours that several answering hosts have running, and those hosts. One look
    may be wrong, for hosts answer one after the other.
    """

    standings: Mapping[str, Standing]
    in_flight: tuple[InFlight, ...]
    unknowns: tuple[Unknown, ...]
    doubled: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def place(sightings: Sequence[Sighting], ours: Sequence[MigrationRecord], before: Mapping[str, str]) -> Placement:
    """``before``: the host each VM stood on at the last look; it decides where the sightings do not."""
    by_uuid: dict[str, list[Sighting]] = defaultdict(list)
    for sighting in sightings:
        by_uuid[sighting.domain.uuid].append(sighting)
    open_records = {record.vm_uuid: record for record in ours if record.state.is_open}
    standings: dict[str, Standing] = {}
    flights: dict[str, InFlight] = {}
    unknowns: list[Unknown] = []
    doubled: dict[str, tuple[str, ...]] = {}
    for uuid in sorted(by_uuid):
        seen, record = by_uuid[uuid], open_records.get(uuid)
        if len(seen) == 1 and seen[0].domain.job is None and seen[0].domain.state is DomainState.RUNNING:
            standings[uuid] = Standing(seen[0])  # as nearly all are: one place, nothing to it
            continue
        standing, flight, unknown = _place_one(_fresh_first(seen), record, before.get(uuid))
        standings[uuid] = standing
        if flight is not None:
            flights[uuid] = flight
        unknowns += unknown
        running = tuple(sorted(s.host for s in seen if s.fresh and s.domain.state.is_running))
        if len(running) > 1 and record is None:
            doubled[uuid] = running
    for uuid, record in open_records.items():
        flights[uuid] = InFlight(vm_uuid=uuid, source=record.source, destination=record.destination, ours=True)
        if uuid in standings and standings[uuid].busy is None:
            standings[uuid] = Standing(standings[uuid].sighting, f"our migration to {record.destination}")
    return Placement(standings, tuple(flights[uuid] for uuid in sorted(flights)), tuple(unknowns), doubled)


def _fresh_first(seen: list[Sighting]) -> list[Sighting]:
    """What a host said before it went silent counts only while no answering host has the VM running."""
    running = [s for s in seen if s.fresh and s.domain.state.is_running]
    return [s for s in seen if s.fresh] if running else seen


def _place_one(
    seen: list[Sighting], record: MigrationRecord | None, before: str | None
) -> tuple[Standing, InFlight | None, list[Unknown]]:
    uuid = seen[0].domain.uuid
    if len(seen) == 1:
        return _alone(seen[0])
    preferred = [h for h in (before, record.source if record is not None else None) if h is not None]

    def rank(sighting: Sighting) -> tuple[bool, bool, int, str]:
        known = preferred.index(sighting.host) if sighting.host in preferred else len(preferred)
        return (not sighting.domain.state.is_running, sighting.domain.state in MIGRATING, known, sighting.host)

    ordered = sorted(seen, key=rank)
    stands, others = ordered[0], ordered[1:]
    hosts = ", ".join(sorted(s.host for s in seen))
    running = [s for s in seen if s.domain.state.is_running]
    if len(running) > 1:
        reason = f"active on {len(running)} hosts at once: {', '.join(sorted(s.host for s in running))}"
        return Standing(stands, reason), None, [Unknown(subject=uuid, field="placement", reason=reason)]
    copies = [s for s in others if s.domain.state in MIGRATING]
    if not copies:
        reason = f"stands on {hosts} and no migration explains it"
        return Standing(stands, reason), None, [Unknown(subject=uuid, field="placement", reason=reason)]
    if not running:
        # both are paused in the moment of the switch-over: it stands where it stood before
        copy = copies[0]
        return Standing(stands, f"migration to {copy.host}"), _flight(uuid, stands.host, copy.host), []
    # an incoming copy beside the running source, or the source that is left behind a switch to post-copy
    copy = copies[0]
    leaving = before == copy.host or copy.domain.state is not DomainState.PAUSED_MIGRATION
    source, destination = (copy.host, stands.host) if leaving else (stands.host, copy.host)
    return Standing(stands, f"migration from {source} to {destination}"), _flight(uuid, source, destination), []


def _alone(sighting: Sighting) -> tuple[Standing, InFlight | None, list[Unknown]]:
    domain = sighting.domain
    if domain.job is not None:
        flight = _flight(domain.uuid, sighting.host, None) if domain.job in MIGRATION_JOBS else None
        return Standing(sighting, f"job: {domain.job}"), flight, []
    if domain.state in MIGRATING or domain.state is DomainState.RUNNING_POSTCOPY:
        reason = f"is {domain.state.value} on {sighting.host}, and no other host shows its other half"
        unknown = Unknown(subject=domain.uuid, field="placement", reason=reason)
        return Standing(sighting, f"a migration whose other end is not seen ({domain.state.value})"), None, [unknown]
    return Standing(sighting), None, []


def _flight(uuid: str, source: str, destination: str | None) -> InFlight:
    return InFlight(vm_uuid=uuid, source=source, destination=destination, ours=False)
