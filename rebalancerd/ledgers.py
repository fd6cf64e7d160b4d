"""How the configured ledger is logged in to, and the lease of the controllers that share it."""

from sqlalchemy.engine import make_url

from rebalancerd.config import Config
from rebalancerd.ports import Clock
from rebalancerd.record.lease import SharedLease
from rebalancerd.record.postgres import Access, make_engine
from rebalancerd.record.sql_ledger import SqlLedger


def ledger_access(cfg: Config) -> Access:
    """How this controller logs in to PostgreSQL. Whatever it leaves locked there is free again within half a lease."""
    lease = cfg.act_settings().lease_seconds
    return Access(
        password_file=cfg.ledger.password_file,
        idle_seconds=min(10.0, lease / 4),
        lock_seconds=min(5.0, lease / 4),
        application=f"rebalancerd {cfg.controller}"[:60],
    )


def share_lease(cfg: Config, ledger: SqlLedger, clock: Clock) -> SharedLease | None:
    """The lease that the controllers of a shared ledger take in turn, set as its fence; None for a ledger on a file."""
    if not ledger.shared:
        return None
    seconds = cfg.act_settings().lease_seconds
    engine = make_engine(make_url(cfg.ledger_url), ledger_access(cfg), connections=2)
    lease = SharedLease(engine, cfg.ledger_url, clock, controller=cfg.controller, seconds=seconds)
    ledger.fence = lease
    return lease
