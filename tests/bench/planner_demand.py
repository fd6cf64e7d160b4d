"""Demand of the benches' large clusters: seeded noise, or stretches of recorded traces; and constraints on a share of the VMs."""

from collections.abc import Sequence

import numpy as np

from rebalancerd.cluster.policy import VmPolicy
from rebalancerd.cluster.trace import Trace
from tests.bench.planner_cases import ArrayCase, Floats

GROUP = 3  # VMs that may not share a host
AVOIDED = 0.1  # share of the hosts that a VM avoids
MOST = 5.0  # times a VM's mean


def noise(case: ArrayCase, paths: int, steps: int, seed: int) -> Floats:
    """Factors (V, paths · steps) on demand: one of all VMs, one of each host's VMs, one of each VM."""
    random, columns = np.random.default_rng(seed), paths * steps
    common = random.normal(0.0, 0.03, (1, columns))
    per_host = random.normal(0.0, 0.04, (case.hosts, columns)).astype(np.float32)
    own = random.normal(0.0, 0.15, (case.vms, columns)).astype(np.float32)
    factors: Floats = np.exp(common + per_host[case.place] + own)
    return factors


def recorded(case: ArrayCase, paths: int, steps: int, seed: int, traces: Sequence[Trace]) -> Floats:
    """Factors from traces: each VM follows a recorded one, each path a stretch of time, the same one for all VMs of a trace.

    A recorded VM's mean counts as 1, and ``MOST`` is the most; what is unknown counts as 1. Raises ValueError for
    traces without ``steps`` rows.
    """
    usable = [t for t in traces if t.cpu.shape[0] > steps]
    if not usable:
        raise ValueError(f"no trace has more than {steps} rows")
    random = np.random.default_rng(seed)
    width = [t.cpu.shape[1] for t in usable]
    chosen = random.choice(sum(width), size=case.vms)
    bounds = np.cumsum([0, *width])
    factors: Floats = np.ones((case.vms, paths * steps), dtype=np.float32)
    for i, trace in enumerate(usable):
        mine = np.flatnonzero((chosen >= bounds[i]) & (chosen < bounds[i + 1]))
        starts = random.integers(0, trace.cpu.shape[0] - steps, size=paths)
        rows = (starts[:, None] + np.arange(steps)).reshape(-1)
        columns = chosen[mine] - bounds[i]
        mean = np.nanmean(np.where(np.isnan(trace.cpu).all(axis=0), 0.0, trace.cpu), axis=0)[columns]
        stretch = trace.cpu[rows][:, columns].T
        known = np.isfinite(stretch) & (mean[:, None] > 0)
        relative = np.divide(stretch, mean[:, None], out=np.ones_like(stretch), where=known)
        factors[mine] = np.clip(relative, 0.0, MOST)
    return factors


def policies(case: ArrayCase, share: float, seed: int) -> list[VmPolicy]:
    """Policy of each VM: of that share, half is in anti-affinity groups that hold now, half avoids a tenth of the hosts."""
    random, found = np.random.default_rng((seed, 7)), [VmPolicy()] * case.vms
    bound = random.permutation(case.vms)[: int(share * case.vms)].tolist()
    for vm in bound[len(bound) // 2 :]:
        away = random.choice(case.hosts, size=max(1, int(AVOIDED * case.hosts)), replace=False)
        found[vm] = VmPolicy(avoid=frozenset(f"h{h:04d}" for h in away if h != case.place[vm]))
    grouped = bound[: len(bound) // 2]
    for number, start in enumerate(range(0, len(grouped) - GROUP + 1, GROUP)):
        members = grouped[start : start + GROUP]
        if len({int(case.place[v]) for v in members}) == GROUP:
            for v in members:
                found[v] = VmPolicy(anti_affinity=frozenset({f"g{number}"}))
    return found
