"""Calls that may hang: each costs its own deadline, never the caller's tick."""

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import TypeVar

T = TypeVar("T")
Job = tuple[Future[object], Callable[[], object]]


class DeadlineError(Exception):
    """The call did not return in time; its thread was left behind and will end when the call does."""


class TooManyHungCallsError(Exception):
    """As many calls as allowed still hang from earlier: no further thread is made until one of them ends."""


class DeadlineWorker:
    """Runs one call at a time on a thread of its own. A thread whose call hangs is left behind and replaced.

    At most ``most_hung`` threads are left behind at once. Threads are daemons: a hung call never keeps the process alive.
    """

    def __init__(self, name: str, *, most_hung: int = 3) -> None:
        self._name = name
        self._most_hung = most_hung
        self._lock = threading.Lock()
        self._jobs: queue.SimpleQueue[Job | None] | None = None
        self._left_behind: list[threading.Thread] = []
        self._thread: threading.Thread | None = None

    @property
    def hung(self) -> int:
        """Threads that were left behind and have not ended."""
        with self._lock:
            return self._count_hung()

    def run(self, work: Callable[[], T], deadline_seconds: float, last: Callable[[], object] | None = None) -> T:
        """The result of ``work``, or its exception. Raises DeadlineError, TooManyHungCallsError.

        ``last`` is what a thread that is left behind does after its call has returned at last.
        """
        with self._lock:
            jobs = self._jobs or self._start()
            future: Future[object] = Future()
            jobs.put((future, work))
        try:
            return future.result(max(0.0, deadline_seconds))  # type: ignore[return-value]
        except FutureTimeoutError:
            if future.done():  # the work itself timed out, just now or by its own error
                return future.result()  # type: ignore[return-value]
            future.cancel()
            self.leave_behind(jobs, last)
            raise DeadlineError(f"no answer within {deadline_seconds:g} s") from None

    def leave_behind(
        self, jobs: "queue.SimpleQueue[Job | None] | None" = None, last: Callable[[], object] | None = None
    ) -> None:
        """Let the present thread end once its call returns, after ``last``; the next call gets a new thread."""
        with self._lock:
            if self._jobs is None or (jobs is not None and jobs is not self._jobs):
                return
            if last is not None:
                self._jobs.put((Future(), last))
            self._jobs.put(None)
            if self._thread is not None:
                self._left_behind.append(self._thread)
            self._jobs = self._thread = None

    def _count_hung(self) -> int:
        self._left_behind = [thread for thread in self._left_behind if thread.is_alive()]
        return len(self._left_behind)

    def _start(self) -> "queue.SimpleQueue[Job | None]":
        if self._count_hung() >= self._most_hung:
            raise TooManyHungCallsError(f"{self._most_hung} earlier calls still hang")
        self._jobs = queue.SimpleQueue()
        self._thread = threading.Thread(target=_work, args=(self._jobs,), name=self._name, daemon=True)
        self._thread.start()
        return self._jobs


def _work(jobs: "queue.SimpleQueue[Job | None]") -> None:
    while (job := jobs.get()) is not None:
        future, work = job
        if not future.set_running_or_notify_cancel():
            continue
        try:
            future.set_result(work())
        except BaseException as error:  # noqa: BLE001 - handed to the caller as it is
            future.set_exception(error)
        del future, work, job
