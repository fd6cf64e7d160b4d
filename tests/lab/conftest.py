"""A lab for the tests of this folder: three real hosts, and guests that are removed after the test that asked for them.

Every test that uses a lab is marked ``lab``. Without root it is skipped; as root a lab that does not start is an error.
"""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from _pytest.runner import runtestprotocol

from rebalancerd.lab import GuestSpec, Lab, LabSpec
from tests.lab.strike import Strike

LAB_FIXTURES = {"lab", "make_guest", "make_spec", "strike"}
FULL = "REBALANCERD_LAB"  # "full": the lab tests marked lab_full run too, as `make faults` does
PANICS: list[str] = []  # guests whose kernel the emulator broke, since last looked at


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> bool | None:
    """Run a lab test once more, and only once, if it failed and a guest's kernel had panicked under software emulation.

    That is a fault of the emulator (`Lab.panicked` tells which), not of what is tested; a second failure counts.
    """
    if item.get_closest_marker("lab") is None:
        return None
    item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    PANICS.clear()
    reports = runtestprotocol(item, nextitem=nextitem, log=False)
    if PANICS and any(report.failed for report in reports):
        print(f"\n{item.nodeid}: emulation broke {', '.join(PANICS)}: running it once more", file=sys.stderr)
        item._initrequest()
        reports = runtestprotocol(item, nextitem=nextitem, log=False)
    for report in reports:
        item.ihook.pytest_runtest_logreport(report=report)
    item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    return True


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if item.path.parent == here and LAB_FIXTURES & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.lab)
    if os.environ.get(FULL) != "full":
        left_out = [item for item in items if item.get_closest_marker("lab_full") is not None]
        items[:] = [item for item in items if item not in left_out]
        config.hook.pytest_deselected(items=left_out)


@pytest.fixture(scope="session")
def make_spec() -> Callable[..., LabSpec]:
    """Make lab specifications whose name and subnet are this test process's own, so that test runs can go on side by side."""
    if os.geteuid() != 0:
        pytest.skip("a lab needs root")
    own, numbers = os.getpid() % 4096, itertools.count()

    def make(**fields: Any) -> LabSpec:
        number = next(numbers) % 16
        block = (own * 16 + number) % (32 * 256)
        return LabSpec(name=f"t{own:03x}{number:x}", subnet=f"10.{96 + block // 256}.{block % 256}.0/24", **fields)

    return make


@pytest.fixture(scope="session")
def lab(make_spec: Callable[..., LabSpec], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """Three hosts without guests, for the whole test run; each test leaves them as it found them."""
    room = Lab(make_spec(hosts=3), tmp_path_factory.mktemp("lab") / "state")
    try:
        room.up()
        yield room
    finally:
        room.down()


@pytest.fixture
def make_guest(lab: Lab) -> Iterator[Callable[..., GuestSpec]]:
    """Start guests in `lab`: ``make_guest(host="h2", disk_mib=16)`` returns one that has booted; all are removed afterwards.

    Takes the fields of `GuestSpec`; a name is made up if none is given. ``boot=False`` does not wait for the boot.
    """
    made: list[str] = []

    def make(*, boot: bool = True, **fields: Any) -> GuestSpec:
        guest = GuestSpec(**{"name": f"guest{len(made)}", **fields})
        made.append(guest.name)
        lab.add_guest(guest)
        if boot:
            lab.wait_booted(guest.name)
        return guest

    try:
        yield make
    finally:
        present = {guest.name for guest in lab.guests}
        for name in made:
            if name in present:
                if lab.panicked(name):
                    PANICS.append(name)
                lab.remove_guest(name)


@pytest.fixture(scope="module")
def struck_room(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Strike]:
    """One daemon for all tests of a file, and the guests they share; both are gone after the file."""
    room = Strike(lab, tmp_path_factory.mktemp("strike"))
    try:
        yield room
    finally:
        with ExitStack() as ends:  # the guests go whatever else fails: the files after this one share the lab
            for guest in lab.guests:
                ends.callback(lab.remove_guest, guest.name)
            ends.callback(room.mend)
            ends.callback(room.daemon.close)


@pytest.fixture
def strike(struck_room: Strike) -> Iterator[Strike]:
    """`Strike`, ready; what the test broke is mended afterwards."""
    try:
        yield struck_room
    finally:
        PANICS.extend(g.name for g in struck_room.lab.guests if struck_room.lab.panicked(g.name))
        struck_room.mend()
