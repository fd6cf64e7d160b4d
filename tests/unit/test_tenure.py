"""Whose turn it is: what follows from winning and losing the shared lease."""

import threading

import pytest
from structlog.testing import capture_logs

from rebalancerd.ports import LedgerUnavailableError
from rebalancerd.record.lease import Tenure
from rebalancerd.tenure import TenureKeeper


class FakeLease:
    """Answers as it is told."""

    controller, look_seconds = "a", 0.01

    def __init__(self) -> None:
        self.epoch = 0
        self.answers: list[object] = []
        self.looks = 0

    def look(self) -> bool:
        self.looks += 1
        answer = self.answers.pop(0) if self.answers else self.epoch > 0
        if isinstance(answer, Exception):
            raise answer
        return bool(answer)

    def held(self) -> bool:
        return self.epoch > 0

    def tenure(self) -> Tenure | None:
        return Tenure(controller="b", epoch=9, ours=False, taken_at=0.0, expires_in_seconds=1.0)


class FakeExecutor:
    def __init__(self) -> None:
        self.done: list[str] = []
        self.adopted = threading.Event()
        self.hang: threading.Event | None = None
        self.error: Exception | None = None

    def adopt(self) -> tuple[object, ...]:
        if self.hang is not None:
            self.hang.wait(10)
        self.done.append("adopt")
        self.adopted.set()
        if self.error is not None:
            raise self.error
        return ()

    def stand_down(self) -> None:
        self.done.append("stand down")


@pytest.fixture
def parts() -> tuple[FakeLease, FakeExecutor, TenureKeeper]:
    lease, executor = FakeLease(), FakeExecutor()
    return lease, executor, TenureKeeper(lease, executor)  # type: ignore[arg-type]


def test_a_won_lease_adopts_once_for_each_tenure(parts) -> None:
    lease, executor, keeper = parts
    with capture_logs() as told:
        lease.epoch = 1
        keeper.look()
        assert executor.adopted.wait(5)
        keeper.look()
        executor.adopted.clear()
        lease.epoch = 3
        keeper.look()
        assert executor.adopted.wait(5)

    assert executor.done == ["adopt", "adopt"]
    assert [line["epoch"] for line in told if line["event"] == "lease_taken"] == [1, 3]


def test_a_lost_lease_stands_down_once(parts) -> None:
    lease, executor, keeper = parts
    lease.epoch = 1
    with capture_logs() as told:
        keeper.look()
        executor.adopted.wait(5)
        lease.answers = [False, False]
        keeper.look()
        keeper.look()

    assert executor.done == ["adopt", "stand down"]
    assert [(line["epoch"], line["leader"]) for line in told if line["event"] == "lease_lost"] == [(1, "b")]


def test_a_database_that_is_away_is_told_once_and_nobody_stands_down(parts) -> None:
    """Who watched goes on watching; the lease runs out by itself."""
    lease, executor, keeper = parts
    lease.epoch = 1
    with capture_logs() as told:
        keeper.look()
        executor.adopted.wait(5)
        lease.answers = [LedgerUnavailableError("away")] * 3
        for _ in range(3):
            keeper.look()

    assert executor.done == ["adopt"]
    assert [line["reason"] for line in told if line["event"] == "lease_not_renewed"] == ["away"]


def test_a_bug_does_not_end_the_looks(parts) -> None:
    lease, _executor, keeper = parts
    lease.answers = [RuntimeError("bug"), True]
    stop = threading.Event()
    with capture_logs():
        thread = threading.Thread(target=keeper.run, args=(stop,))
        thread.start()
        while lease.looks < 5:
            stop.wait(0.01)
        stop.set()
        thread.join(5)
    assert not thread.is_alive()


def test_hosts_that_hang_do_not_keep_the_lease_from_being_renewed(parts) -> None:
    lease, executor, keeper = parts
    executor.hang = threading.Event()
    lease.epoch = 1
    with capture_logs():
        for _ in range(3):
            keeper.look()
        assert lease.looks == 3
        assert executor.done == []
        executor.hang.set()
        assert executor.adopted.wait(5)


def test_an_adoption_that_the_ledger_refuses_is_put_off(parts) -> None:
    lease, executor, keeper = parts
    executor.error = LedgerUnavailableError("away")
    lease.epoch = 1
    with capture_logs() as told:
        keeper.look()
        executor.adopted.wait(5)
        for _ in range(500):
            if any(line["event"] == "adopting_put_off" for line in told):
                break
            threading.Event().wait(0.01)
    assert any(line["event"] == "adopting_put_off" for line in told)
