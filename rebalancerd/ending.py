"""The end of the process: parts that hang hold up neither each other nor the exit."""

import os
import threading
import time
from collections.abc import Callable

import structlog

log = structlog.get_logger(__name__)

THREADS_PATIENCE_SECONDS = 1.0


def within(seconds: float, **parts: Callable[[], object]) -> bool:
    """Do parts of the end side by side, each on a thread of its own; whether all returned in time.

    What fails or hangs is told, and never holds up the rest.
    """

    def end(name: str, work: Callable[[], object]) -> None:
        try:
            work()
        except Exception as error:
            log.exception("end_failed", of=name, reason=str(error))

    deadline = time.monotonic() + seconds
    threads = {name: threading.Thread(target=end, args=(name, work), daemon=True) for name, work in parts.items()}
    for thread in threads.values():
        thread.start()
    for thread in threads.values():
        thread.join(max(0.0, deadline - time.monotonic()))
    hung = [name for name, thread in threads.items() if thread.is_alive()]
    if hung:
        log.warning("end_hangs", of=hung, waited_seconds=seconds)
    return not hung


def end_process(code: int) -> None:
    """For the program's last line: let it end with that code soon, whatever call still hangs.

    At its end Python joins the threads of every pool (daemon threads too), however long their calls hang. A thread that
    nobody joins ends the process then; the interpreter ends it where nothing hangs.
    """

    def end() -> None:
        time.sleep(THREADS_PATIENCE_SECONDS)
        ours = (threading.main_thread(), threading.current_thread())
        log.warning("hung_calls_left_behind", threads=sorted(t.name for t in threading.enumerate() if t not in ours))
        os._exit(code)

    threading.Thread(target=end, name="end", daemon=True).start()
