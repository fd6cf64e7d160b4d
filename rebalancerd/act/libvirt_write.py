"""ports.HypervisorWrite over libvirt: the only place where a migration is handed over, tuned or aborted.

It holds read-write connections of its own, two per host: one for migrate calls, which block until the migration is
over, one for the short calls. A migration is peer to peer: the source's libvirtd drives it, so it goes on when this
process dies.
"""

import threading
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from rebalancerd.act.cause import RIGHTS_CODES
from rebalancerd.clock import SystemClock
from rebalancerd.cluster.cost import MigrationOptions
from rebalancerd.cluster.migration import MigrationRecord
from rebalancerd.cluster.units import MIB
from rebalancerd.observe.host_uri import LOCAL
from rebalancerd.observe.libvirt_connection import HostLink, Opener, host_error, is_alive, open_read_write
from rebalancerd.observe.settings import HostSettings, ObserveSettings
from rebalancerd.ports import Clock, HostError, HostRefusedError

T = TypeVar("T")

# the longest time from being asked to the begin of the call; a controller's successor waits longer than that
HAND_OVER_SECONDS = 5.0


class LibvirtHandle:
    """A migrate call on a thread of its own."""

    def __init__(self, name: str, call: Callable[[], HostError | None]) -> None:
        self._call = call
        self._lock = threading.Lock()
        self._returned = False
        self._error: HostError | None = None
        self._callbacks: list[Callable[[], None]] = []
        # a daemon thread: when this process ends the migration goes on without it
        threading.Thread(target=self._run, name=f"migrate-{name}", daemon=True).start()

    def done(self) -> bool:
        """Whether the call has returned."""
        with self._lock:
            return self._returned

    def error(self) -> HostError | None:
        """The error it returned with."""
        with self._lock:
            return self._error

    def when_done(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` once the call has returned, at once if it has."""
        with self._lock:
            if not self._returned:
                self._callbacks.append(callback)
                return
        callback()

    def _run(self) -> None:
        error = self._call()
        with self._lock:
            self._returned, self._error = True, error
            callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            callback()


def migrate_flags(libvirt: Any, options: MigrationOptions, *, persistent: bool) -> int:
    """Flags of the migrate call. A transient domain stays transient, so nothing is defined or undefined for it."""
    flags = libvirt.VIR_MIGRATE_LIVE | libvirt.VIR_MIGRATE_PEER2PEER | libvirt.VIR_MIGRATE_ABORT_ON_ERROR
    if persistent:
        flags |= libvirt.VIR_MIGRATE_PERSIST_DEST | libvirt.VIR_MIGRATE_UNDEFINE_SOURCE
    if options.auto_converge:
        flags |= libvirt.VIR_MIGRATE_AUTO_CONVERGE
    if options.postcopy:
        flags |= libvirt.VIR_MIGRATE_POSTCOPY
    if options.parallel > 0:
        flags |= libvirt.VIR_MIGRATE_PARALLEL
    if options.tls:
        flags |= libvirt.VIR_MIGRATE_TLS
    return int(flags)


def migrate_parameters(libvirt: Any, options: MigrationOptions, migration_uri: str) -> dict[str, str | int]:
    """Typed parameters: the address always, or libvirt asks the destination for its host name. Bandwidth in MiB/s."""
    parameters: dict[str, str | int] = {libvirt.VIR_MIGRATE_PARAM_URI: migration_uri}
    if options.bandwidth_bytes_per_second is not None:
        parameters[libvirt.VIR_MIGRATE_PARAM_BANDWIDTH] = whole_mib(options.bandwidth_bytes_per_second)
    if options.parallel > 0:
        parameters[libvirt.VIR_MIGRATE_PARAM_PARALLEL_CONNECTIONS] = options.parallel
    return parameters


def whole_mib(bytes_per_second: float) -> int:
    """libvirt's unit of bandwidth, at least 1, because 0 means no limit."""
    return max(1, int(bytes_per_second // MIB))


class LibvirtWrite:
    """ports.HypervisorWrite. Opens nothing before the first call."""

    def __init__(
        self,
        hosts: Sequence[HostSettings],
        settings: ObserveSettings,
        clock: Clock | None = None,
        opener: Opener = open_read_write,
    ) -> None:
        self._clock = clock if clock is not None else SystemClock()
        self._hosts = {host.name: host for host in hosts}
        seconds = settings.call_deadline_seconds

        def links(purpose: str) -> dict[str, HostLink]:
            return {
                host.name: HostLink(host, purpose=purpose, opener=opener, clock=self._clock, deadline_seconds=seconds)
                for host in hosts
            }

        self._migrating, self._control = links("migrate"), links("control")

    def migrate(self, record: MigrationRecord) -> LibvirtHandle:
        """Hand a live migration to the source's libvirt on a thread of its own.

        Raises HostError only where nothing was handed over: no path to the destination, no connection, no such domain,
        or a flag that would be lost and may not be set.
        """
        asked_at = self._clock.monotonic()
        peer_uri, migration_uri = self._path(record.destination)
        domain = self._domain_to_move(record)

        def call() -> HostError | None:
            import libvirt

            options = record.options
            flags = migrate_flags(libvirt, options, persistent=record.persistent)
            parameters = migrate_parameters(libvirt, options, migration_uri)
            late = self._clock.monotonic() - asked_at
            if late > HAND_OVER_SECONDS:
                return HostRefusedError(record.source, f"the call was not begun: {late:.1f} s late")
            try:
                domain.migrateToURI3(peer_uri, parameters, flags)
            except libvirt.libvirtError as error:
                alive = is_alive(domain.connect())
                return host_error(record.source, "migrate", error, alive=alive, relayed=True)
            return None

        return LibvirtHandle(record.vm_uuid[:8], call)

    def abort(self, host: str, vm_uuid: str) -> None:
        """Ask for the job's abort."""
        self._tune(host, vm_uuid, "abort", lambda domain: domain.abortJob())

    def set_max_downtime(self, host: str, vm_uuid: str, seconds: float) -> None:
        """Change the allowed downtime of a running migration."""
        milliseconds = max(1, round(seconds * 1000))
        self._tune(host, vm_uuid, "set downtime", lambda domain: domain.migrateSetMaxDowntime(milliseconds, 0))

    def set_bandwidth(self, host: str, vm_uuid: str, bytes_per_second: float) -> None:
        """Change the bandwidth cap of a running migration."""
        limit = whole_mib(bytes_per_second)
        self._tune(host, vm_uuid, "set bandwidth", lambda domain: domain.migrateSetMaxSpeed(limit, 0))

    def set_autostart(self, host: str, vm_uuid: str, autostart: bool) -> None:
        """Set a domain's autostart flag."""
        self._tune(host, vm_uuid, "set autostart", lambda domain: domain.setAutostart(int(autostart)))

    def may_set_autostart(self, host: str) -> bool:
        """Whether a read-write connection to that host can be had. False where libvirt refuses it for want of rights.

        A finer access driver (polkit) shows only when the flag is set: ``migrate`` tries that on the source.
        """
        try:
            return bool(self._control[host].call("connect", lambda connection: connection.isAlive() == 1))
        except HostRefusedError as error:
            if error.code in RIGHTS_CODES:
                return False
            raise

    def move_definition(self, source: str, destination: str, vm_uuid: str) -> None:
        """Offline migration of a domain that is shut off, peer to peer, so that it ends whatever becomes of us.

        The only use of that flag. Raises HostError; a deadline that passed says nothing of how it ends.
        """
        peer_uri, _ = self._path(destination)

        def call(connection: Any) -> None:
            import libvirt

            domain = connection.lookupByUUIDString(vm_uuid)
            if domain.isActive():  # the last question before the call: a running guest has another way
                raise HostRefusedError(source, "the domain was started meanwhile")
            flags = libvirt.VIR_MIGRATE_OFFLINE | libvirt.VIR_MIGRATE_PEER2PEER
            flags |= libvirt.VIR_MIGRATE_PERSIST_DEST | libvirt.VIR_MIGRATE_UNDEFINE_SOURCE
            domain.migrateToURI3(peer_uri, {}, flags)

        self._migrating[source].call("move the definition", call)

    def close(self) -> None:
        """Let go of every connection; running migrations go on."""
        for link in (*self._migrating.values(), *self._control.values()):
            link.close()

    def _path(self, destination: str) -> tuple[str, str]:
        host = self._hosts[destination]
        scheme, separator, rest = host.write_uri.partition("://")
        local = scheme in LOCAL and bool(separator) and rest[:1] == "/"
        peer_uri = host.peer_uri or (None if local else host.write_uri)
        if peer_uri is None or host.migration_uri is None:
            missing = "peer URI" if peer_uri is None else "migration URI"
            raise HostRefusedError(destination, f"no {missing} is configured, so no host can migrate to it")
        return peer_uri, host.migration_uri

    def _domain_to_move(self, record: MigrationRecord) -> Any:
        """Its handle on the connection for migrate calls."""

        def look_up(connection: Any) -> Any:
            domain = connection.lookupByUUIDString(record.vm_uuid)
            if record.persistent and record.autostart:
                domain.setAutostart(1)  # as it is: only to learn before the move whether the right is there
            return domain

        return self._migrating[record.source].call("look up the VM", look_up)

    def _tune(self, host: str, vm_uuid: str, what: str, work: Callable[[Any], T]) -> T:
        return self._control[host].call(what, lambda connection: work(connection.lookupByUUIDString(vm_uuid)))
