"""The real clock."""

import time


class SystemClock:
    """ports.Clock on the machine's clocks: CLOCK_MONOTONIC and the wall clock in UTC."""

    def monotonic(self) -> float:
        """Seconds on a clock that never steps."""
        return time.monotonic()

    def wall(self) -> float:
        """Seconds since the epoch."""
        return time.time()

    def sleep(self, seconds: float) -> None:
        """Let time pass."""
        time.sleep(max(0.0, seconds))
