"""A cluster on one machine: real libvirt hosts between which real QEMU guests migrate live."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from rebalancerd.lab import channel, network, residents, services, takedown
from rebalancerd.lab.commands import LabError
from rebalancerd.lab.domain import CHANNEL_DIR, channel_file, domain_xml
from rebalancerd.lab.heartbeat import Heartbeat, console_panicked, last_heartbeat, parse_heartbeats
from rebalancerd.lab.host import BINDS, LabHost
from rebalancerd.lab.image import CACHE_DIR, build_image
from rebalancerd.lab.kvm import guest_runs_on_kvm
from rebalancerd.lab.layout import Layout
from rebalancerd.lab.requirements import can_run
from rebalancerd.lab.spec import GuestSpec, Phase, check_phases, encode_schedule
from rebalancerd.lab.state import LabState, load_state, locked, save_state
from rebalancerd.lab.status import GuestStatus, HostStatus, LabStatus
from rebalancerd.lab.storage import FIRST_PORT

FRESH_SECONDS = 3.0
Progress = Callable[[str], None]


def _silent(_: str) -> None:
    pass


class Lab(Layout):
    """A lab and its state directory.

    The state file is written before anything else is made, and everything that is made has a name that follows from it
    (or is a process in the lab's cgroup), so `down` finds all of it, in any process and after a crash at any point.

    Any user of this machine can reach the hosts by TCP on the lab's subnet, without a password: keep nothing of value in it.

    Args:
        spec: what it consists of.
        state_dir: its directory; made by `up`, deleted by `down`.
        cache_dir: where the guest image is kept; it stays after `down`.

    Raises:
        LabError: the path of the directory is too long for a socket in it, or has a character that a libvirt URI cannot have.
    """

    @classmethod
    def open(cls, state_dir: Path, *, cache_dir: Path = CACHE_DIR) -> Lab:
        """Attach to a lab that was started, by whatever process, or that a crash left half-way.

        Raises:
            LabError: there is no lab in that directory.
        """
        state = load_state(Path(state_dir))
        if state is None:
            raise LabError(f"no lab in {state_dir}")
        return cls(state.spec, state_dir, cache_dir=cache_dir)

    # ---- up and down ----

    def up(self, progress: Progress = _silent) -> LabStatus:
        """Bring the lab up, or what of it is missing (a libvirtd that died, a guest that was stopped).

        Measured on 2 cores in software emulation, 3 hosts of 0.6 cores: 0.5 s, and 0.6 s for each guest; the very first
        time on a machine 20 s more (kernel 3 s, try of KVM up to 8 s, what libvirt finds out about QEMU 8 s); a lab that
        is up, 0.1 s.

        Args:
            progress: told each step before it is taken, in a few words.

        Raises:
            LabError: the lab cannot run here, or a part of it does not start. What was started is left for `down`.
        """
        reason = can_run()
        if reason:
            raise LabError(reason)
        with locked(self.state_dir, create=True):
            self._claim()
            progress("guest image")
            image = build_image(self.cache_dir)
            if self._state().accelerator is None:
                progress("accelerator")
                kvm = self.spec.accelerator == "kvm" or (
                    self.spec.accelerator == "auto" and guest_runs_on_kvm(image, self.cache_dir)
                )
                save_state(self.state_dir, replace(self._state(), accelerator="kvm" if kvm else "tcg"))
            progress("cgroups")
            self._services.create()
            for host in self.hosts:
                host.give_limits()
            progress("bridge")
            address = self.spec.address(network.MACHINE_NUMBER)
            network.ensure_bridge(self.bridge, address, self.state_dir, self._services)
            self._start_hosts(self.hosts, progress)
            progress("what libvirt knows of QEMU")
            self.hosts[0].learn_emulator(self.cache_dir, self.hosts[1:])
            known = residents.places(self.hosts)
            for guest in self.guests:
                if guest.name not in known or known[guest.name].state == "shut off":
                    progress(f"guest {guest.name}")
                    self._start_guest(guest, known[guest.name].host if guest.name in known else self.host(guest.host))
            return self.status()

    def _claim(self) -> None:
        state = load_state(self.state_dir)
        if state is not None and state.spec != self.spec:
            raise LabError(f"the lab in {self.state_dir} was made with another specification; take it down first")
        if state is None and any(self.state_dir.iterdir()):
            raise LabError(f"{self.state_dir} is not empty and has no lab in it")
        network.check_owner(self.bridge, self.state_dir)
        if state is None:
            save_state(self.state_dir, LabState(spec=self.spec, guests=self.spec.guests))

    def _note_directories(self) -> None:
        """Make the directories that hosts mount theirs on, and remember which of them (and of lxcfs's own) were not there."""
        missing = tuple(path for path in (*BINDS.values(), *takedown.LXCFS_RUN_DIRS) if not Path(path).exists())
        state = self._state()
        save_state(self.state_dir, replace(state, made_directories=(*state.made_directories, *missing)))
        for path in BINDS.values():
            Path(path).mkdir(parents=True, exist_ok=True)

    def _start_hosts(self, hosts: tuple[LabHost, ...], progress: Progress) -> None:
        groups = {host.name: host.cgroup for host in self.hosts}
        progress("view of /proc")
        self._note_directories()
        proc = services.serve_lxcfs(self.state_dir, self._services, groups)
        views = services.serve_cpu_view(self.state_dir, self._services, groups)
        names = "".join(f"{host.address} {host.name}\n" for host in self.hosts)
        for host in hosts:
            progress(f"host {host.name}")
            host.start((*([views / host.name] if views else []), proc), f"127.0.0.1 localhost\n{names}")
            host.link.attach(self.bridge, host.address, self._services)
        progress("libvirtd")
        with ThreadPoolExecutor() as pool:
            list(pool.map(LabHost.start_libvirtd, hosts))

    def down(self, progress: Progress = _silent) -> None:
        """Take the lab down and leave nothing behind but the cached guest image; nothing happens if it is down.

        Measured: 0.2 s.

        Raises:
            LabError: a lab of this name is up with another state directory, or something cannot be removed.
        """
        with locked(self.state_dir, create=False):
            network.check_owner(self.bridge, self.state_dir)
            progress("processes")
            self._cgroup().remove()
            progress("mounts")
            takedown.unmount_below(self.state_dir)
            if not self._cgroup().siblings():
                takedown.delete_shared_directories(self._state().made_directories)
            progress("network")
            for host in self.hosts:
                network.remove_link(host.port)
            network.remove_link(self.bridge)
            progress("state")
            takedown.delete_state(self.state_dir)

    def status(self) -> LabStatus:
        """Look at every host and every guest; hosts that do not answer are reported as such."""
        state = self._state()
        known = residents.places(self.hosts)
        guests = []
        for guest in state.guests:
            place = known.get(guest.name)
            where, what = (place.host.name, place.state) if place else (None, "unknown")
            guests.append(GuestStatus(guest.name, where, what, self.heartbeat(guest.name)))
        hosts = tuple(
            HostStatus(
                name=host.name,
                up=host.holder_pid() is not None,
                libvirtd_pid=host.libvirtd_pid(),
                responsive=host.responsive(),
                connected=network.is_up(host.port),
                cpu_seconds=host.cgroup.cpu_seconds(),
            )
            for host in self.hosts
        )
        return LabStatus(self.spec.name, self.state_dir, state.accelerator, hosts, tuple(guests))

    # ---- guests ----

    def add_guest(self, guest: GuestSpec) -> None:
        """Add a guest to a lab that is up, and start it.

        Raises:
            LabError: there is a guest of that name, or it does not start.
            ValueError: it does not fit the lab.
        """
        self.spec.check_guest(guest)
        with locked(self.state_dir, create=False):
            state = self._up_state()
            if any(other.name == guest.name for other in state.guests):
                raise LabError(f"lab {self.spec.name} has a guest {guest.name}")
            save_state(self.state_dir, replace(state, guests=(*state.guests, guest)))
            self._start_guest(guest, self.host(guest.host))

    def remove_guest(self, name: str) -> None:
        """Stop a guest wherever it is and remove it with its disk and its logs.

        Raises:
            LabError: there is none of that name, or libvirtd refuses.
        """
        with locked(self.state_dir, create=False):
            state = self._up_state()
            guest = self.guest(name)
            residents.remove(self.hosts, name)
            disk = self._disk(guest, state)
            if disk:
                disk.remove(self._services)
            for host in self.hosts:
                self._console(host, name).unlink(missing_ok=True)
            ports = {other: port for other, port in state.disk_ports.items() if other != name}
            guests = tuple(other for other in state.guests if other.name != name)
            save_state(self.state_dir, replace(state, guests=guests, disk_ports=ports))

    def _up_state(self) -> LabState:
        state = load_state(self.state_dir)
        if state is None or state.accelerator is None:
            raise LabError(f"lab {self.spec.name} is not up")
        return state

    def _start_guest(self, guest: GuestSpec, host: LabHost) -> None:
        state = self._up_state()
        if guest.disk_mib and guest.name not in state.disk_ports:
            taken = set(state.disk_ports.values())
            port = next(port for port in range(FIRST_PORT, FIRST_PORT + 1000) if port not in taken)
            state = replace(state, disk_ports={**state.disk_ports, guest.name: port})
            save_state(self.state_dir, state)
        disk = self._disk(guest, state)
        if disk:
            disk.serve(guest.disk_mib, self._services)
        image, uuid = build_image(self.cache_dir), self.spec.guest_uuid(guest.name)
        xml = domain_xml(guest, uuid, image, disk, kvm=state.accelerator == "kvm")
        residents.start(host, guest.name, xml, persistent=guest.persistent, autostart=guest.autostart)

    def find(self, name: str) -> str | None:
        """Return the host that runs a guest (or has it defined); None if no libvirtd that answers knows it."""
        place = residents.places(self.hosts).get(name)
        return place.host.name if place else None

    def heartbeat(self, name: str) -> Heartbeat | None:
        """Return what a guest said last on its console, wherever it is or was; None before its first word. Needs no libvirtd."""
        beats = [beat for host in self.hosts if (beat := last_heartbeat(self._console(host, name)))]
        return max(beats, key=lambda beat: beat.at, default=None)

    def panicked(self, name: str) -> bool:
        """Whether the guest's kernel has ever panicked. Needs no libvirtd.

        QEMU before 9.0 loses pages in a live migration of several rounds in software emulation: it reads the dirty bits
        without dropping the translations through which the guest writes on (docs/benchmarks.md). One round is nearly
        always whole; guests with `GuestSpec.flush_ms` come through any number.
        """
        return any(console_panicked(self._console(host, name)) for host in self.hosts)

    def counter(self, name: str) -> Heartbeat:
        """Return the last heartbeat on a guest's console.

        Raises:
            LabError: it has not said anything yet.
        """
        beat = self.heartbeat(name)
        if beat is None:
            raise LabError(f"guest {name} has not said anything yet")
        return beat

    def disk_counter(self, name: str) -> Heartbeat:
        """Return the last heartbeat on a guest's disk; its `at` is when the disk was last written.

        Raises:
            LabError: it has no disk, or nothing was written to it yet.
        """
        disk = self._disk(self.guest(name), self._state())
        if disk is None:
            raise LabError(f"guest {name} has no disk")
        beats = parse_heartbeats(disk.first_sector() + "\n", disk.image.stat().st_mtime)
        if not beats:
            raise LabError(f"guest {name} has not written to its disk yet")
        return beats[-1]

    def wait_booted(self, name: str, timeout: float = 60.0) -> Heartbeat:
        """Wait until a guest's program runs, and return the heartbeat that shows it.

        Measured in software emulation: 2.8 s after `add_guest` on a host of one core, 7 s for two at once on 0.6 cores.

        Raises:
            LabError: no heartbeat came within `timeout` seconds.
        """
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            beat = self.heartbeat(name)
            if beat is not None and time.time() - beat.at < FRESH_SECONDS:
                return beat
            time.sleep(0.1)
        raise LabError(f"guest {name}: no heartbeat within {timeout:g} s")

    def set_load(self, name: str, phases: tuple[Phase, ...], *, repeat: bool = False, timeout: float = 30.0) -> None:
        """Give a running guest a new schedule, which it starts at once; a migration under way does not matter.

        Args:
            name: of the guest.
            phases: its load from now on.
            repeat: start over after the last phase.
            timeout: seconds to wait for the guest's answer.

        Raises:
            LabError: there is no such guest, or it does not answer.
            ValueError: the schedule does not fit the guest.
        """
        check_phases(phases, self.guest(name).memory_mib)
        try:
            channel.send_schedule(lambda: self._socket(name), encode_schedule(phases, repeat), timeout)
        except LabError as error:
            raise LabError(f"guest {name}: {error}") from error

    def progress(self, name: str, *, host: str | None = None, timeout: float = 5.0) -> channel.GuestProgress:
        """Ask a running guest how far it is; answered within its turn of 50 ms where nothing holds it up.

        Args:
            name: of the guest.
            host: where it runs, None to look for it.
            timeout: seconds to wait for the guest's answer.

        Raises:
            LabError: there is no such guest, or it does not answer.
        """
        self.guest(name)
        try:
            return channel.ask_progress(lambda: self._socket(name, host), timeout)
        except LabError as error:
            raise LabError(f"guest {name}: {error}") from error

    def _socket(self, name: str, host: str | None = None) -> Path | None:
        if host is None:
            place = residents.places(self.hosts).get(name)
            if place is None:
                return None
            host = place.host.name
        return self.host(host).directory / "run" / Path(CHANNEL_DIR).name / channel_file(name)

    # ---- faults and shaping ----

    def kill_libvirtd(self, host: str, number: int = signal.SIGKILL) -> None:
        """Send a host's libvirtd a signal; its guests go on.

        Raises:
            LabError: there is no such host, its libvirtd is not running or does not end of a signal that should end it.
        """
        self.host(host).kill_libvirtd(number)

    def start_libvirtd(self, host: str) -> None:
        """Start a host's libvirtd again if it is not running; it takes over the guests that run.

        Raises:
            LabError: there is no such host, or libvirtd does not start.
        """
        self.host(host).start_libvirtd()

    def power_off(self, host: str) -> None:
        """Switch a host off as a machine is: whatever runs on it ends, guests too; its files stay. Nothing if it is off.

        Raises:
            LabError: there is no such host, or something of it cannot be ended.
        """
        with locked(self.state_dir, create=False):
            self.host(host).power_off()

    def power_on(self, host: str) -> None:
        """Switch a host on and wait until its libvirtd answers; its CPU time counts from zero. Nothing if it is on.

        Raises:
            LabError: there is no such host, the lab is not up, or the host does not start.
        """
        with locked(self.state_dir, create=False):
            self._up_state()
            self.host(host).give_limits()
            self._start_hosts((self.host(host),), _silent)

    def shape(self, host: str, rate_mbit: float | None = None, delay_ms: float | None = None) -> None:
        """Limit a host's link, both directions, to `rate_mbit` (10^6 bit/s) and delay it by `delay_ms`; None lifts a limit.

        Raises:
            LabError: a figure is out of bounds, or this kernel cannot do it (`delay_available` tells about delays).
        """
        self.host(host).link.shape(rate_mbit, delay_ms)

    def cut(self, host: str) -> None:
        """Pull a host's cable out: no migration, no disk. Its libvirt sockets on this machine still work.

        Raises:
            LabError: there is no such host, or it is not up.
        """
        self.host(host).link.set_up(connected=False)

    def heal(self, host: str) -> None:
        """Plug a host's cable in again.

        Raises:
            LabError: there is no such host, or it is not up.
        """
        self.host(host).link.set_up(connected=True)

    def command_on(self, host: str, *argv: str) -> tuple[str, ...]:
        """Wrap a command so that it runs as if on a host: its limits, network, hostname, /proc figures and libvirt.

        Raises:
            LabError: there is no such host, or it is not up.
        """
        return self.host(host).command_on(*argv)
