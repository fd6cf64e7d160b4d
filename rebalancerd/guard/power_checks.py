"""May this host be put to sleep now? One function per reason; each gives a refusal or None. Nothing forbids waking."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from rebalancerd.cluster.policy import HostMode, Mode
from rebalancerd.cluster.power import PowerLimits, PowerPhase, PowerRecord
from rebalancerd.cluster.refusal import Code, Refusal, about_cluster, about_host
from rebalancerd.guard.checks import may_plan
from rebalancerd.guard.context import GuardContext

GOING = frozenset({PowerPhase.CLOSING, PowerPhase.SHUTTING_DOWN})


@dataclass(frozen=True, kw_only=True)
class PowerAsk:
    """One host that would sleep. ``ordered``: an operator asks for it by name; ``test``: to be woken at once.

    ``records``: every host on record; ``controlled``: hosts whose power can be controlled.
    """

    host: str
    ctx: GuardContext
    records: Mapping[str, PowerRecord]
    controlled: frozenset[str]
    limits: PowerLimits
    ordered: bool = False
    test: bool = False

    @property
    def record(self) -> PowerRecord:
        """The host's own."""
        return self.records.get(self.host) or PowerRecord(host=self.host)

    def refuse(self, code: Code, detail: str) -> Refusal:
        """A refusal about this host."""
        return about_host(code, self.host, detail)


def controllable(ask: PowerAsk) -> Refusal | None:
    """Its power must be configured."""
    if ask.host in ask.controlled:
        return None
    return ask.refuse(Code.NO_POWER_CONTROL, f"no way to control the power of {ask.host} is configured")


def acting_mode(ask: PowerAsk) -> Refusal | None:
    """Only auto does it by itself; in guarded the operator's order is the approval."""
    mode = ask.ctx.mode
    if mode is Mode.AUTO or (mode is Mode.GUARDED and ask.ordered):
        return None
    if mode is Mode.GUARDED:
        return about_cluster(Code.NOT_APPROVED, f"mode guarded: `rebalancerd power sleep {ask.host}` approves it")
    return about_cluster(Code.CLUSTER_MODE, f"mode {mode} powers nothing off")


def cycle_allows(ask: PowerAsk) -> Refusal | None:
    """What lets no migration start lets no host sleep: doubtful data, a pause, a lost lease, an open breaker."""
    return may_plan(ask.ctx, policy="drain" if ask.ordered else "balance")


def awake(ask: PowerAsk) -> Refusal | None:
    """A host that is on its way somewhere goes on first."""
    record = ask.record
    if record.phase is PowerPhase.AWAKE:
        return None
    return ask.refuse(Code.POWER_BUSY, f"{ask.host} is {record.phase.value.replace('_', ' ')}: {record.reason}")


def takes_part(ask: PowerAsk) -> Refusal | None:
    """A host that is only observed is not ours to power off."""
    host = ask.ctx.snapshot.host_by_name.get(ask.host)
    if host is None or not host.usable:
        why = "it is not known" if host is None else host.unusable or "its facts are unknown"
        return ask.refuse(Code.HOST_STALE, f"{ask.host} is not usable: {why}")
    if host.mode is HostMode.OBSERVE:
        return ask.refuse(Code.HOST_MODE, f"{ask.host} is in mode observe")
    return None


def not_disabled(ask: PowerAsk) -> Refusal | None:
    """What went wrong once is looked at, and shown to be mended by a passed test, before it is tried for a night."""
    if ask.test or ask.record.disabled is None:
        return None
    return ask.refuse(Code.POWER_DISABLED, f"power-off of {ask.host} is disabled: {ask.record.disabled}")


def tested(ask: PowerAsk) -> Refusal | None:
    """It has come back by our order before."""
    if ask.test or ask.record.tested_at is not None:
        return None
    hint = f"{ask.host} never woke by our order: `rebalancerd power test {ask.host}` while it is empty"
    return ask.refuse(Code.POWER_UNTESTED, hint)


def up_long_enough(ask: PowerAsk) -> Refusal | None:
    """No host goes up and down all the time."""
    up_since = ask.record.up_since
    if ask.ordered or up_since is None:
        return None
    rest = up_since + ask.limits.min_up_seconds - ask.ctx.now
    return None if rest <= 0 else ask.refuse(Code.MIN_UP_TIME, f"{ask.host} came up lately: {rest:.0f} s to go")


def not_by_hand(ask: PowerAsk) -> Refusal | None:
    """Who powered it on by hand wants it."""
    at = ask.record.by_hand_at
    if ask.ordered or at is None:
        return None
    rest = at + ask.limits.by_hand_seconds - ask.ctx.now
    detail = f"{ask.host} was powered on by hand: left on for {rest:.0f} s more"
    return None if rest <= 0 else ask.refuse(Code.POWERED_ON_BY_HAND, detail)


def seen_empty(ask: PowerAsk) -> Refusal | None:
    """Nothing was seen on it or on its way there; libvirt itself is asked twice before anything is done."""
    snapshot = ask.ctx.snapshot
    names = [vm.name for vm in snapshot.vms_on.get(ask.host, ())]
    if names:
        more = f" and {len(names) - 4} more" if len(names) > 4 else ""
        return ask.refuse(
            Code.HOST_NOT_EMPTY, f"{len(names)} VMs on {ask.host}: {', '.join(map(repr, names[:4]))}{more}"
        )
    moving = [m for m in ask.ctx.under_way().values() if ask.host in (m.source, m.destination) or m.destination is None]
    if moving:
        return ask.refuse(Code.HOST_NOT_EMPTY, f"a migration under way may concern {ask.host}")
    return None


def few_at_once(ask: PowerAsk) -> Refusal | None:
    """Hosts go one after the other."""
    going = sorted(r.host for r in ask.records.values() if r.phase in GOING)
    if len(going) < ask.limits.sleep_at_once:
        return None
    return ask.refuse(
        Code.POWER_BUSY, f"{', '.join(going)} on the way to sleep; at most {ask.limits.sleep_at_once} at once"
    )


def nothing_wakes(ask: PowerAsk) -> Refusal | None:
    """While one is woken because it is needed, none is sent to sleep by itself."""
    coming = sorted(r.host for r in ask.records.values() if r.phase is PowerPhase.WAKING or r.wake_wanted is not None)
    if ask.ordered or not coming:
        return None
    return ask.refuse(Code.POWER_BUSY, f"{', '.join(coming)} on the way up")


CHECKS: tuple[Callable[[PowerAsk], Refusal | None], ...] = (
    controllable,
    acting_mode,
    cycle_allows,
    awake,
    takes_part,
    not_disabled,
    tested,
    not_by_hand,
    up_long_enough,
    seen_empty,
    few_at_once,
    nothing_wakes,
)


def may_sleep(ask: PowerAsk) -> Refusal | None:
    """The first refusal, None where nothing forbids it but demand (which planning holds against it)."""
    return next((refusal for check in CHECKS if (refusal := check(ask)) is not None), None)


def may_sleep_or_test(ask: PowerAsk) -> tuple[Refusal | None, bool]:
    """As ``may_sleep``, and whether it is for a wake test: a host's first night begins with that."""
    refusal = may_sleep(ask)
    if refusal is not None and refusal.code is Code.POWER_UNTESTED:
        return may_sleep(replace(ask, test=True)), True
    return refusal, False
