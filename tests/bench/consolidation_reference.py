"""Figures of CloudSim 3.0.3 itself on the PlanetLab days, trace files sorted by name, against which the world is accepted.

Measured with the original's own Java, its only change the order in which the trace files are read.
"""

from dataclasses import dataclass

from tests.bench.consolidation_day import Day

EXACT = 0.001
THR_ENERGY, THR_MIGRATIONS, THR_SLAV = 0.005, 0.01, 0.05
FEWER = 0.2  # of THR-MMT-0.8's migrations, in the corrected world


@dataclass(frozen=True, slots=True)
class Reference:
    """kWh, migrations and SLAV (a share) of one day."""

    dvfs_kwh: float
    thr_kwh: float
    thr_migrations: int
    thr_slav: float
    lr_kwh: float
    lr_migrations: int


REFERENCES = {
    "20110303": Reference(802.75, 192.62, 26711, 3.18e-5, 163.48, 27859),
    "20110306": Reference(625.53, 144.74, 20908, 3.60e-5, 123.28, 20878),
    "20110309": Reference(704.93, 165.27, 23475, 4.05e-5, 142.09, 24959),
    "20110322": Reference(1011.14, 201.70, 28902, 3.06e-5, 177.48, 32038),
    "20110325": Reference(789.25, 175.24, 24883, 3.37e-5, 152.58, 26513),
    "20110403": Reference(1070.46, 258.56, 35488, 3.00e-5, 219.70, 37972),
    "20110409": Reference(935.01, 209.32, 29377, 3.02e-5, 179.89, 31556),
    "20110411": Reference(888.42, 207.38, 29130, 3.13e-5, 176.12, 31960),
    "20110412": Reference(763.48, 177.20, 24824, 3.29e-5, 151.61, 26248),
    "20110420": Reference(684.61, 150.50, 22191, 4.27e-5, 130.90, 24400),
}


def accepted(day: str, policy: str, found: Day) -> list[tuple[str, bool]]:
    """What is asked of the re-implementation for that day and policy, and whether it holds; nothing for an unknown day."""
    reference = REFERENCES.get(day)
    if reference is None or policy not in ("dvfs", "thr"):
        return []
    if policy == "dvfs":
        return [_near(f"{day} DVFS kWh", found.energy_kwh, reference.dvfs_kwh, EXACT)]
    return [
        _near(f"{day} THR-MMT-0.8 kWh", found.energy_kwh, reference.thr_kwh, THR_ENERGY),
        _near(f"{day} THR-MMT-0.8 migrations", found.migrations, reference.thr_migrations, THR_MIGRATIONS),
        _near(f"{day} THR-MMT-0.8 SLAV", found.slav, reference.thr_slav, THR_SLAV),
    ]


def demanded(day: str, variant: str, runs: dict[str, Day]) -> list[tuple[str, bool]]:
    """What is asked of our own loop on that day, of the policies that were run beside it."""
    ours, thr, lr = runs.get("ours"), runs.get("thr"), runs.get("lr")
    if ours is None:
        return []
    name = f"{day} {variant} ours"
    most = 0.001 if variant == "compat" else 0.0005
    checks = [(f"{name}: real shortage {ours.shortage:.4%} ≤ {most:.2%}", ours.shortage <= most)]
    if variant == "compat" and lr is not None:
        checks.append(
            (f"{name}: {ours.energy_kwh:.1f} kWh < LR-MMT-1.2's {lr.energy_kwh:.1f}", ours.energy_kwh < lr.energy_kwh)
        )
        tenth = lr.migrations / 10
        checks.append((f"{name}: {ours.migrations} migrations ≤ {tenth:.0f}", ours.migrations <= tenth))
    if variant == "compat" and thr is not None:
        checks.append((f"{name}: SLAV {ours.slav:.3g} < THR-MMT-0.8's {thr.slav:.3g}", ours.slav < thr.slav))
    if variant == "corrected" and thr is not None:
        checks.append(
            (
                f"{name}: {ours.energy_kwh:.1f} kWh ≤ THR-MMT-0.8's {thr.energy_kwh:.1f}",
                ours.energy_kwh <= thr.energy_kwh,
            )
        )
        fifth = thr.migrations * FEWER
        checks.append((f"{name}: {ours.migrations} migrations ≤ {fifth:.0f}", ours.migrations <= fifth))
    return checks


def _near(what: str, found: float, expected: float, tolerance: float) -> tuple[str, bool]:
    off = found / expected - 1
    return f"{what}: {found:.6g}, CloudSim {expected:.6g} ({off:+.3%}, {tolerance:.1%} allowed)", abs(off) <= tolerance
