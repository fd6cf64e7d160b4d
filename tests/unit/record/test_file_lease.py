"""The lock of a single controller."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from rebalancerd.record.file_lease import FileLease, LeaseTakenError


def test_second_holder_is_told_who_has_it(tmp_path: Path) -> None:
    first = FileLease(tmp_path / "lock")

    with pytest.raises(LeaseTakenError, match=rf"locked by another rebalancerd \(process {os.getpid()}\)"):
        FileLease(tmp_path / "lock")
    assert first.held()


def test_released_lease_can_be_taken_again(tmp_path: Path) -> None:
    first = FileLease(tmp_path / "lock")
    first.release()
    second = FileLease(tmp_path / "lock")

    assert not first.held()
    assert second.held()


def test_lease_of_a_killed_process_is_free(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    code = f"import os, pathlib; from rebalancerd.record.file_lease import FileLease; FileLease(pathlib.Path({str(path)!r})); os._exit(9)"
    subprocess.run([sys.executable, "-c", code], check=False)

    assert FileLease(path).held()


def test_lease_whose_file_was_replaced_is_lost(tmp_path: Path) -> None:
    """Another daemon would lock the new file, so ours no longer keeps anybody out."""
    path = tmp_path / "lock"
    lease = FileLease(path)
    path.unlink()
    path.touch()

    assert not lease.held()
