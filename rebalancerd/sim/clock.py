"""Virtual time: nothing here waits, and the wall clock may be stepped as a fault does."""

import threading

EPOCH = 1_767_225_600.0  # 2026-01-01 00:00:00 UTC, a Thursday


class SimClock:
    """ports.Clock on virtual time. ``monotonic`` starts at 0; ``wall`` is ``start_wall`` plus that plus any step.

    Safe to read from several threads; ``sleep`` and ``advance_to`` only ever move time forward.
    """

    def __init__(self, start_wall: float = EPOCH) -> None:
        self._now = 0.0
        self._offset = start_wall
        self._lock = threading.Lock()

    def monotonic(self) -> float:
        """Virtual seconds since the start."""
        return self._now

    def wall(self) -> float:
        """Seconds since the epoch, steps included."""
        return self._offset + self._now

    def sleep(self, seconds: float) -> None:
        """Let virtual time pass at once."""
        if seconds > 0:
            with self._lock:
                self._now += seconds

    def advance_to(self, monotonic: float) -> None:
        """Move to that instant; an instant in the past (a call took longer than its slot) changes nothing."""
        with self._lock:
            self._now = max(self._now, monotonic)

    def step_wall(self, seconds: float) -> None:
        """Step the wall clock forwards or, negative, backwards, as a wrong NTP server does."""
        with self._lock:
            self._offset += seconds
