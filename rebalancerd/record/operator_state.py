"""What the commands of operators add up to, in the order in which they were given (their numbers, not the clock)."""

from sqlalchemy import Connection, and_, func, insert, or_, select
from sqlalchemy.exc import IntegrityError

from rebalancerd.cluster.decision import Command, CommandKind, OperatorState
from rebalancerd.record.rows import command_of
from rebalancerd.record.schema import approval_uses, commands, migrations, plans

ALL_STEPS = 0
UNKNOWN_PLAN_SECONDS = 7 * 86_400.0
APPROVING = (CommandKind.APPROVE, CommandKind.APPLY)


def added_up(connection: Connection, now: float) -> OperatorState:
    """The state at ``now``. Words about a plan that has expired, and approvals of one step that were used, are left out."""
    last = _last(connection, CommandKind.PAUSE, CommandKind.RESUME)
    paused = last if last is not None and last.kind is CommandKind.PAUSE else None
    if paused is not None and paused.until is not None and paused.until <= now:
        paused = None
    closed = _last(connection, CommandKind.CLOSE_BREAKER)
    resumed = _last(connection, CommandKind.RESUME)
    hosts = _last_by_subject(connection, CommandKind.DRAIN, CommandKind.UNDRAIN)
    cleared = _last_by_subject(connection, CommandKind.CLEAR_QUARANTINE)
    power = _last_by_subject(connection, CommandKind.POWER_SLEEP, CommandKind.POWER_WAKE, CommandKind.POWER_TEST)
    words = _words(connection, now)
    return OperatorState(
        paused=paused,
        drained=frozenset(host for host, c in hosts.items() if c.kind is CommandKind.DRAIN and _lasts(c, now)),
        approved=tuple(c for c in words if c.kind is CommandKind.APPROVE),
        rejected=tuple(c for c in words if c.kind is CommandKind.REJECT),
        applied=tuple(c for c in words if c.kind is CommandKind.APPLY),
        breaker_closed_at=closed.at if closed is not None else None,
        resumed_at=resumed.at if resumed is not None else None,
        quarantine_cleared=tuple(sorted((host, c.at) for host, c in cleared.items())),
        power=tuple(power[host] for host in sorted(power)),
    )


def use(connection: Connection, command_id: int, migration_id: str, at: float) -> bool:
    """Note one use of an approval; the primary key lets each step be started by it once, whoever asks at the same time."""
    row = connection.execute(select(commands).where(commands.c.id == command_id)).mappings().first()
    if row is None:
        return False
    command = command_of(row)
    if command.kind not in APPROVING:
        return False
    step = command.step
    if step in (None, ALL_STEPS):
        step = connection.execute(select(migrations.c.step).where(migrations.c.id == migration_id)).scalar()
    used_for = f"step {step}" if step is not None else f"migration {migration_id}"
    values = {"command_id": command_id, "used_for": used_for, "migration_id": migration_id, "at": at}
    try:
        with connection.begin_nested():
            connection.execute(insert(approval_uses).values(values))
    except IntegrityError:
        return False
    return True


def _last(connection: Connection, *kinds: CommandKind) -> Command | None:
    wanted = select(commands).where(commands.c.kind.in_([k.value for k in kinds])).order_by(commands.c.id.desc())
    row = connection.execute(wanted.limit(1)).mappings().first()
    return command_of(row) if row is not None else None


def _last_by_subject(connection: Connection, *kinds: CommandKind) -> dict[str, Command]:
    """The last command of these kinds about each subject."""
    newest = (
        select(func.max(commands.c.id))
        .where(commands.c.kind.in_([k.value for k in kinds]), commands.c.subject.is_not(None))
        .group_by(commands.c.subject)
    )
    found = connection.execute(select(commands).where(commands.c.id.in_(newest))).mappings()
    return {row["subject"]: command_of(row) for row in found}


def _words(connection: Connection, now: float) -> list[Command]:
    """Approvals, rejections and applied plans that can still matter, in their order."""
    kinds = [k.value for k in (*APPROVING, CommandKind.REJECT)]
    spent = select(approval_uses.c.command_id).where(approval_uses.c.command_id == commands.c.id).exists()
    single = and_(commands.c.step.is_not(None), commands.c.step != ALL_STEPS)
    wanted = (
        select(commands)
        .distinct()
        .outerjoin(plans, plans.c.digest == commands.c.digest)
        .where(
            commands.c.kind.in_(kinds),
            or_(plans.c.expires_at > now, and_(plans.c.id.is_(None), commands.c.at > now - UNKNOWN_PLAN_SECONDS)),
            ~and_(single, spent),
        )
        .order_by(commands.c.id)
    )
    return [command_of(row) for row in connection.execute(wanted).mappings()]


def _lasts(command: Command, now: float) -> bool:
    return command.until is None or command.until > now
