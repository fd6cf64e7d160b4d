"""What libvirt's events tell of one host: whose XML changed, which migrations run, how they ended."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

from rebalancerd.cluster.migration import Completion
from rebalancerd.observe.domain_stats import OPERATION_MIGRATION_OUT, completion_of

KEPT_COMPLETIONS = 512
# events after which the XML is another; a changed balloon alters nothing that facts hold
XML_EVENTS = (
    "METADATA_CHANGE",
    "DEVICE_ADDED",
    "DEVICE_REMOVED",
    "DISK_CHANGE",
    "TRAY_CHANGE",
    "TUNABLE",
    "BLOCK_JOB_2",
)


class HostEvents:
    """A host's events, gathered by libvirt's event thread and taken by whoever samples. Thread-safe.

    Events are hints only: what they miss is found by reading anew every few minutes.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._changed: set[str] = set()
        self._suspected: set[str] = set()
        self._completions: OrderedDict[str, Completion] = OrderedDict()
        self._listed: frozenset[str] | None = None
        self._untold: frozenset[str] = frozenset()  # came or went between the last two polls without an event so far
        self._named: set[str] = set()  # had an event since the last poll
        self.missed = 0

    def register(self, connection: Any) -> None:
        """Register every callback that this libvirt knows on a new connection."""
        import libvirt

        def add(event: str, callback: Callable[..., None]) -> None:
            number = getattr(libvirt, f"VIR_DOMAIN_EVENT_ID_{event}", None)
            if number is None:
                return
            try:
                connection.domainEventRegisterAny(None, number, callback, None)
            except libvirt.libvirtError as error:
                if error.get_error_code() != libvirt.VIR_ERR_NO_SUPPORT:
                    raise

        add("LIFECYCLE", self._on_change)
        for event in XML_EVENTS:
            add(event, self._on_change)
        add("MIGRATION_ITERATION", self._on_iteration)
        add("JOB_COMPLETED", self._on_completed)

    def listed(self, uuids: frozenset[str]) -> None:
        """Which domains a poll has listed: who came or went without an event by the next poll was missed by events."""
        with self._lock:
            told = self._named
            self.missed += len(self._untold - told)
            came_or_went = frozenset() if self._listed is None else self._listed ^ uuids
            self._untold, self._named, self._listed = came_or_went - told, set(), uuids

    def forget_listed(self) -> None:
        """A new connection: what changed before it had callbacks is nobody's fault."""
        with self._lock:
            self._listed, self._untold, self._named = None, frozenset(), set()

    def take_changed(self) -> frozenset[str]:
        """UUIDs whose XML may have changed since the last call."""
        with self._lock:
            changed = frozenset(self._changed)
            self._changed.clear()
        return changed

    def changed(self, uuids: frozenset[str]) -> None:
        """Let these be read anew at the next chance."""
        with self._lock:
            self._changed |= uuids

    def suspected(self) -> frozenset[str]:
        """UUIDs that may have a job: to be verified by asking."""
        with self._lock:
            return frozenset(self._suspected)

    def suspect(self, uuids: frozenset[str]) -> None:
        """Let these be verified too."""
        with self._lock:
            self._suspected |= uuids

    def clear_suspicion(self, uuid: str) -> None:
        """That one has no job."""
        with self._lock:
            self._suspected.discard(uuid)

    def completion(self, uuid: str) -> Completion | None:
        """Statistics of the last migration of that VM away from this host, as its event told them."""
        with self._lock:
            return self._completions.get(uuid)

    def _on_change(self, _connection: object, domain: Any, *_details: object) -> None:
        uuid = domain.UUIDString()
        with self._lock:
            self._changed.add(uuid)
            self._named.add(uuid)

    def _on_iteration(self, _connection: object, domain: Any, *_details: object) -> None:
        uuid = domain.UUIDString()
        with self._lock:
            self._suspected.add(uuid)
            self._completions.pop(uuid, None)  # of an earlier migration: this one is not over

    def _on_completed(self, _connection: object, domain: Any, params: object, _opaque: object) -> None:
        uuid = domain.UUIDString()
        stats: Mapping[str, object] = params if isinstance(params, dict) else {}
        done = completion_of(stats)
        with self._lock:
            self._changed.add(uuid)
            self._completions.pop(uuid, None)
            if done is not None and stats.get("operation", OPERATION_MIGRATION_OUT) == OPERATION_MIGRATION_OUT:
                self._completions[uuid] = done
                while len(self._completions) > KEPT_COMPLETIONS:
                    self._completions.popitem(last=False)
