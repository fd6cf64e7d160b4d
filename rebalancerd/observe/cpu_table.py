"""Which hosts' CPUs fit which VMs: compared a few pairs at a time, one VM standing for all of the same CPU."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass

from rebalancerd.cluster.host import HostFacts
from rebalancerd.cluster.sample import CpuFit
from rebalancerd.cluster.snapshot import CpuFitRow
from rebalancerd.cluster.vm import VmFacts
from rebalancerd.ports import HostError, HypervisorProbe

FRESH_SECONDS = 3600.0
RETRY_SECONDS = 300.0


@dataclass(frozen=True, slots=True)
class _Answer:
    row: CpuFitRow
    at: float
    host_key: tuple[object, ...]


def _key(facts: HostFacts) -> tuple[object, ...]:
    """What makes an old answer worthless: another CPU, another libvirt or QEMU."""
    return (facts.uuid, facts.cpu_model, facts.libvirt_version, facts.hypervisor_version)


class CpuTable:
    """Answers by (CPU digest, host). Instants are monotonic seconds. ``fill`` by one thread at a time."""

    def __init__(self) -> None:
        self._answers: dict[tuple[str, str], _Answer] = {}
        self._lock = threading.Lock()

    def rows(self) -> tuple[CpuFitRow, ...]:
        """All answers, in order."""
        with self._lock:
            return tuple(self._answers[key].row for key in sorted(self._answers))

    def fill(
        self,
        probe: HypervisorProbe,
        vms: Sequence[tuple[VmFacts, str]],
        hosts: Sequence[tuple[str, HostFacts]],
        now: float,
        most: int,
    ) -> int:
        """Ask at most ``most`` pairs, never-asked ones first; ``vms`` with their hosts. Returns how many were asked."""
        examples: dict[str, tuple[VmFacts, str]] = {}
        for facts, host in vms:
            if facts.cpu_digest is not None and facts.virt_type != "qemu":
                examples.setdefault(facts.cpu_digest, (facts, host))
        names = {name for name, _ in hosts}
        with self._lock:
            self._answers = {k: a for k, a in self._answers.items() if k[0] in examples and k[1] in names}
        due = [
            (self._age_rank(digest, name, facts, now), digest, name, facts)
            for digest in examples
            for name, facts in hosts
        ]
        wanted = sorted((item for item in due if item[0] is not None), key=lambda item: item[:3])[:most]
        for _, digest, name, host_facts in wanted:
            vm, source = examples[digest]
            self._ask(probe, vm, source, (name, host_facts), now)
        return len(wanted)

    def _age_rank(self, digest: str, host: str, facts: HostFacts, now: float) -> float | None:
        """When it was asked last, −inf for never; None while the answer is good."""
        answer = self._answers.get((digest, host))
        if answer is None or answer.host_key != _key(facts):
            return float("-inf")
        lasts = RETRY_SECONDS if answer.row.fit is CpuFit.UNKNOWN else FRESH_SECONDS
        return answer.at if now - answer.at > lasts else None

    def _ask(
        self, probe: HypervisorProbe, vm: VmFacts, source: str, destination: tuple[str, HostFacts], now: float
    ) -> None:
        name, facts = destination
        try:
            fit, detail = probe.cpu_fit(vm.uuid, source, name)
        except HostError as error:
            fit, detail = CpuFit.UNKNOWN, str(error)
        row = CpuFitRow(cpu_digest=vm.cpu_digest or "", host=name, fit=fit, detail=detail)
        with self._lock:
            self._answers[row.cpu_digest, name] = _Answer(row, now, _key(facts))
