"""A lab for the tests of this folder: three real hosts, and guests that are removed after the test that asked for them.

Every test that uses a lab is marked ``lab``. Without root it is skipped; as root a lab that does not start is an error.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rebalancerd.lab import GuestSpec, Lab, LabSpec

LAB_FIXTURES = {"lab", "make_guest", "make_spec"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if item.path.parent == here and LAB_FIXTURES & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.lab)


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
                lab.remove_guest(name)
