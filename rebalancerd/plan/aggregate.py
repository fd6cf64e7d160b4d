"""Refusals counted and grouped: like ones about the same subject become one with a count."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace

from rebalancerd.cluster.refusal import Code, Refusal


def grouped(refusals: Iterable[Refusal]) -> tuple[Refusal, ...]:
    """One refusal per code and subject, the first one's detail, their counts summed, in order of first appearance.

    A group that stands for several destinations names none.
    """
    found: dict[tuple[Code, str], Refusal] = {}
    for refusal in refusals:
        key = (refusal.code, refusal.subject)
        kept = found.get(key)
        if kept is None:
            found[key] = refusal
        else:
            same = kept.destination == refusal.destination
            found[key] = replace(kept, count=kept.count + refusal.count, destination=kept.destination if same else None)
    return tuple(found.values())


def tally(refusals: Iterable[Refusal]) -> str:
    """Codes by number of VMs they stop, most frequent first, e.g. "3 pinned, 1 immovable"."""
    subjects: Counter[Code] = Counter()
    for code, _ in {(r.code, r.subject) for r in refusals}:
        subjects[code] += 1
    rows = sorted(subjects.items(), key=lambda row: (-row[1], row[0].value))
    return ", ".join(f"{count} {code.value}" for code, count in rows)
