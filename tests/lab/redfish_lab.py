"""The lab's hosts behind a Redfish controller: its power state is theirs, as ``sushy-emulator`` tells whenever it changes."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from rebalancerd.lab import Lab, LabError
from tests.e2e.power_world import PASSWORD, USER, redfish_emulator, secret


@dataclass
class Switches:
    """What switched the lab's hosts. ``seen``: (epoch seconds, host, "On" or "Off", QEMU processes on it just before)."""

    lab: Lab
    directory: Path
    url: str = ""
    seen: list[tuple[float, str, str, list[int]]] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    _turn: threading.Lock = field(default_factory=threading.Lock)

    def config(self, host: str) -> str:
        """The ``[hosts.power]`` table of one host."""
        return (
            f'[hosts.power]\nkind = "redfish"\naddress = "{self.url}"\n'
            f'system = "/redfish/v1/Systems/{self.lab.host(host).host_uuid}"\n'
            f'username_file = "{secret(self.directory, "username", USER)}"\n'
            f'password_file = "{secret(self.directory, "password", PASSWORD)}"\n'
            f'ca_file = "{self.directory / "cert.pem"}"\n'
        )

    def follow(self, name: str, state: str) -> None:
        """Make the host what its controller says it is."""
        with self._turn:
            host = self.lab.host(name)
            if (state == "On") == (host.holder_pid() is not None):
                return
            self.seen.append((time.time(), name, state, emulators(self.lab, name)))
            if state == "On":
                self.lab.power_on(name)
            else:
                self.lab.power_off(name)


def emulators(lab: Lab, host: str) -> list[int]:
    """QEMU processes on a host."""
    found = []
    for pid in lab.host(host).cgroup.pids():
        try:
            if Path(f"/proc/{pid}/comm").read_text().startswith("qemu"):
                found.append(pid)
        except OSError:
            continue  # ended since
    return found


@contextmanager
def lab_behind_redfish(lab: Lab, directory: Path) -> Iterator[Switches]:
    """One controller with a system for each host of the lab, over TLS, behind a name and password."""
    switches = Switches(lab, directory)

    class Told(BaseHTTPRequestHandler):
        def do_PUT(self) -> None:
            system = json.loads(self.rfile.read(int(self.headers["content-length"])))
            try:
                switches.follow(system["name"], system["power_state"])
            except (LabError, OSError) as error:  # the test looks at them
                switches.errors.append(f"{system['name']} {system['power_state']}: {error}")
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Told) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        systems = [{"uuid": host.host_uuid, "name": host.name} for host in lab.hosts]
        notify = f"http://127.0.0.1:{server.server_address[1]}"
        with redfish_emulator(directory, tls=True, systems=systems, notify=notify) as url:
            switches.url = url
            yield switches
        server.shutdown()
        thread.join()
