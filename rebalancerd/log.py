"""Logging: JSON off a terminal, pretty on one, UTC instants, one canonical line per cycle, names from outside escaped."""

import logging
import sys
from collections import Counter
from collections.abc import Mapping, MutableMapping
from typing import Any, Literal, TextIO

import structlog
from structlog.typing import EventDict, Processor

from rebalancerd.cluster.decision import CycleRecord, Outcome
from rebalancerd.cluster.names import printable

# libraries that tell every tick and request at "info"
QUIET = (
    "apscheduler",
    "uvicorn",
    "uvicorn.access",
    "uvicorn.error",
    "alembic",
    "sqlalchemy",
    "httpx",
    "httpcore",
    "asyncio",
)
MAX_DEPTH = 6

log = structlog.get_logger("rebalancerd.cycle")


def configure(
    level: str = "info", form: Literal["auto", "json", "pretty"] = "auto", stream: TextIO | None = None
) -> None:
    """Set structlog and the standard library's logging up, once per process; calling it again replaces the former."""
    out = sys.stderr if stream is None else stream
    pretty = form == "pretty" or (form == "auto" and out.isatty())
    lowest = logging.getLevelNamesMapping()[level.upper()]
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.PositionalArgumentsFormatter(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
        structlog.processors.format_exc_info,
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(lowest),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(out)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared[:3], structlog.stdlib.ExtraAdder(), *shared[4:]],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *_rendering(out, pretty=pretty)],
        )
    )
    root = logging.getLogger()
    for former in list(root.handlers):
        root.removeHandler(former)
    root.addHandler(handler)
    root.setLevel(lowest)
    for name in QUIET:
        logging.getLogger(name).setLevel(max(lowest, logging.WARNING))
    logging.captureWarnings(capture=True)


def _rendering(out: TextIO, *, pretty: bool) -> list[Processor]:
    if pretty:
        colours = out.isatty() and not _no_color()
        renderer = structlog.dev.ConsoleRenderer(colors=colours, exception_formatter=structlog.dev.plain_traceback)
        return [escape_names, renderer]
    # ensure_ascii: no name can carry a control sequence or a broken character into a terminal or a log store
    return [structlog.processors.JSONRenderer(ensure_ascii=True, sort_keys=False, default=_told)]


def _no_color() -> bool:
    import os

    return bool(os.environ.get("NO_COLOR"))


def _told(value: object) -> object:
    """JSON of what JSON does not know."""
    return sorted(map(str, value)) if isinstance(value, frozenset | set) else str(value)


def escape_names(_logger: object, _method: str, event: EventDict) -> EventDict:
    """A processor: every text escaped as in ``printable``; a traceback keeps its line breaks."""
    for key, value in list(event.items()):
        if key in ("exception", "stack") and isinstance(value, str):
            event[key] = "\n".join(printable(line) for line in value.split("\n"))
        else:
            event[key] = _escaped(value, 0)
    return event


def _escaped(value: Any, depth: int) -> Any:
    if isinstance(value, str):
        return printable(str(value))
    if depth >= MAX_DEPTH:
        return printable(repr(value))
    if isinstance(value, Mapping):
        return {_escaped(k, depth + 1): _escaped(v, depth + 1) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_escaped(item, depth + 1) for item in value]
    if value is None or isinstance(value, bool | int | float):
        return value
    return printable(str(value))


def cycle_fields(record: CycleRecord) -> MutableMapping[str, Any]:
    """What the one line of a cycle says."""
    outcomes = Counter(decision.outcome.value for decision in record.decisions)
    codes: Counter[str] = Counter()
    for refusal in (*record.refusals, *(d.refusal for d in record.decisions if d.refusal is not None)):
        codes[refusal.code.value] += refusal.count
    return {
        "cycle": record.id,
        "mode": record.mode.value,
        "policy": record.policy,
        "outcome": record.outcome.value,
        "reason": record.reason,
        "hosts": len(record.hosts),
        "unusable": sum(host.unusable is not None for host in record.hosts),
        "hot": list(record.hot_hosts),
        "vms": sum(host.vms for host in record.hosts),
        "moving": record.moving,
        "plan": record.plan_id,
        "steps": dict(sorted(outcomes.items())),
        "refusals": dict(sorted(codes.items())),
        "seconds": round(record.seconds, 3),
        "spent": {name: round(seconds, 3) for name, seconds in record.step_seconds},
    }


def log_cycle(record: CycleRecord) -> None:
    """The canonical line of a cycle, "no action" included."""
    fields = cycle_fields(record)
    if record.outcome is Outcome.FAILED:
        log.error("cycle", **fields)
    else:
        log.info("cycle", **fields)
