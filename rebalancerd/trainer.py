"""Trainings that the daemon begins but never does itself: systemd hears its wish, or a process of its own does the work."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import structlog

from rebalancerd.predict.manifest import ArtefactError
from rebalancerd.predict.store import LastTraining, ModelStore

log = structlog.get_logger(__name__)

HEARD_WITHIN_SECONDS = 3600.0
STOP_SECONDS = 2.0
# systemd's way to the daemon, which is not its children's
_OURS_ALONE = frozenset({"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_PID"})


def run_by_systemd(environment: Mapping[str, str]) -> bool:
    """Whether this process, and not just one above it, is a service of systemd's."""
    started = environment.get("SYSTEMD_EXEC_PID")
    return "INVOCATION_ID" in environment and started in (None, str(os.getpid()))


class Trainer:
    """Begins trainings and tells how they ended. ``config``: the daemon's file; ``now``: epoch seconds.

    ``stores``: of every kind that is trained, all in one directory.
    """

    def __init__(
        self,
        stores: Sequence[ModelStore[Any]],
        config: Path,
        now: Callable[[], float],
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._stores, self._config, self._now = tuple(stores), config.absolute(), now
        self._environment = dict(os.environ if environment is None else environment)
        self._process: subprocess.Popen[bytes] | None = None
        self._told = {store.kind.name: self._last(store) for store in self._stores}

    def begin(self) -> None:
        """Begin a training, unless one is under way. Raises nothing: what fails is logged."""
        try:
            if run_by_systemd(self._environment):
                self._wish()
            else:
                self._start()
        except OSError as error:
            log.error("training_not_started", reason=str(error))

    def _wish(self) -> None:
        since = self._stores[0].request_training()
        if since is None:
            log.info("training_requested", by="systemd")
        elif self._now() - since > HEARD_WITHIN_SECONDS:
            hint = "systemctl enable --now rebalancerd-train.path, and see that it names this state directory"
            log.warning("training_not_started", reason="nobody has heard the request", since=since, hint=hint)

    def _start(self) -> None:
        if self._process is not None and self._process.poll() is None:
            log.info("training_still_runs", pid=self._process.pid)
            return
        nice = ["nice", "-n", "19"] if shutil.which("nice") else []
        command = [*nice, sys.executable, "-m", "rebalancerd", "train", "all"]
        environment = {k: v for k, v in self._environment.items() if k not in _OURS_ALONE}
        self._process = subprocess.Popen(
            [*command, "--config", str(self._config), "--output", "json"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
            env=environment | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        )
        log.info("training_requested", by="process", pid=self._process.pid)

    def look(self) -> None:
        """Tell of a training that has ended since the last look."""
        if self._process is not None:
            self._process.poll()  # leaves no zombie
        for store in self._stores:
            kind, last = store.kind.name, self._last(store)
            if last is not None and last != self._told[kind]:
                self._told[kind] = last
                log.info("training_ended", kind=kind, outcome=last.outcome, reason=last.why, model=last.model)

    def stop(self) -> None:
        """End a training that this process began; one that systemd runs goes on."""
        if self._process is None or self._process.poll() is not None:
            return
        self._process.terminate()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()

    def _last(self, store: ModelStore[Any]) -> LastTraining | None:
        try:
            return store.last_training()
        except ArtefactError as error:
            log.warning("training_unknown", reason=str(error))
            return None
