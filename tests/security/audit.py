"""`make audit`: every pinned package looked up among the known vulnerabilities, and an exit code that can be believed.

0: all were looked up and none is known to be vulnerable. 1: some are. 2: some, or all, could not be looked up, so that
nothing is known of them: pip-audit itself calls that a success.
"""

import json
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
LOCKS = ("requirements.lock", "requirements-fuzz.lock", "requirements-audit.lock")
# where advisories are asked for, the second where the first knows nothing of a package
SERVICES = ("pypi", "osv")
PATIENCE_SECONDS = 600


@dataclass(frozen=True)
class Findings:
    """Of one lock file: packages that are vulnerable, with what is known; packages that nothing is known of."""

    vulnerable: tuple[str, ...]
    unknown: tuple[str, ...]
    looked_up: int


def pinned(lock: Path) -> set[str]:
    """Names of the packages in a lock file, as they are compared."""
    return {
        normal(name) for name in re.findall(r"^([A-Za-z0-9][A-Za-z0-9._-]*)(?:\[[^]]*\])?==", lock.read_text(), re.M)
    }


def normal(name: str) -> str:
    """A package's name in its one spelling."""
    return re.sub(r"[-_.]+", "-", name).lower()


def findings(report: Any, names: set[str]) -> Findings:
    """What pip-audit's JSON says of those packages; whatever it does not mention is unknown."""
    vulnerable, seen = [], set()
    for row in report.get("dependencies", []) if isinstance(report, dict) else []:
        if "skip_reason" in row or "vulns" not in row:
            continue
        seen.add(normal(row["name"]))
        for found in row["vulns"]:
            mended = ", ".join(found.get("fix_versions") or ()) or "no version"
            vulnerable.append(f"{row['name']} {row['version']}: {found['id']}, mended in {mended}")
    return Findings(tuple(vulnerable), tuple(sorted(names - seen)), len(names & seen))


def audited(lock: Path, command: Sequence[str]) -> tuple[Findings, str]:
    """What is known of a lock file, by the first service that knows all of it; the last complaint where none does."""
    names, complaint = pinned(lock), ""
    best = Findings((), tuple(sorted(names)), 0)
    for service in SERVICES:
        argv = [*command, "--requirement", str(lock), "--require-hashes", "--disable-pip", "--format", "json",
                "--progress-spinner", "off", "--vulnerability-service", service]  # fmt: skip
        try:
            done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=PATIENCE_SECONDS)
            found = findings(json.loads(done.stdout), names)
        except (ValueError, subprocess.TimeoutExpired) as error:
            lines = done.stderr.strip().splitlines() if not isinstance(error, subprocess.TimeoutExpired) else []
            complaint = lines[-1][-200:] if lines else str(error)[:200]
            continue
        if found.looked_up >= best.looked_up:
            best = found
        if not found.unknown:
            break
    return best, complaint


def main(command: Sequence[str]) -> int:
    """Print what is known of every lock file; the worst of the codes."""
    code = 0
    for name in LOCKS:
        found, complaint = audited(ROOT / name, command)
        print(f"{name}: {found.looked_up} packages looked up, {len(found.vulnerable)} vulnerabilities known")
        for line in found.vulnerable:
            print(f"  {line}")
        if found.unknown:
            shown = ", ".join(found.unknown[:5]) + (", …" if len(found.unknown) > 5 else "")
            print(f"  NOT AUDITED: {len(found.unknown)} packages ({shown}): no advisories could be had for them")
            if complaint:
                print(f"  {complaint}")
        code = max(code, 2 if found.unknown else 1 if found.vulnerable else 0)
    return code


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:] or ["pip-audit"]))
