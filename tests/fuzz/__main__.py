"""`make fuzz`: atheris on every reader, or on those named; what broke one is kept beside the tests.

Each reader has a process of its own, so that a crash or a hang ends only its own look.
"""

import argparse
import hashlib
import subprocess
import sys
from pathlib import Path

from tests.fuzz.targets import KEPT, ROOT, TARGETS

SLOW_SECONDS = 20
MEMORY_MIB = 2048
LONGEST_BYTES = 65_536


def look(name: str, seconds: int, corpus: Path) -> bool:
    """Fuzz one reader; whether it held. What broke it is added to the kept examples."""
    seeds = corpus / name
    seeds.mkdir(parents=True, exist_ok=True)
    for data in TARGETS[name].seeds():
        (seeds / hashlib.sha256(data).hexdigest()[:16]).write_bytes(data)
    words = corpus / f"{name}.dict"
    words.write_text("".join(f'"{_hex(word[:60])}"\n' for word in TARGETS[name].words))
    found = corpus / f"{name}-found"
    found.mkdir(exist_ok=True)
    longest = max(LONGEST_BYTES, *(path.stat().st_size for path in seeds.iterdir()))
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "tests.fuzz.look",
            name,
            str(seeds),
            f"-max_total_time={seconds}",
            f"-timeout={SLOW_SECONDS}",
            f"-rss_limit_mb={MEMORY_MIB}",
            f"-max_len={longest}",
            f"-dict={words}",
            f"-artifact_prefix={found}/",
            "-print_final_stats=1",
            "-verbosity=1",
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    told = [line for line in done.stderr.splitlines() if line.startswith("stat::number_of_executed_units")]
    executed = told[0].split(":")[-1].strip() if told else "?"
    print(f"{name}: {'held' if done.returncode == 0 else 'BROKEN'}, {executed} inputs in {seconds} s", flush=True)
    if done.returncode == 0:
        return True
    lines = (done.stdout + done.stderr).splitlines()
    first = next((i for i, line in enumerate(lines) if "Uncaught Python exception" in line), max(0, len(lines) - 20))
    print("\n".join(line[:300] for line in lines[first : first + 30]), flush=True)
    for path in found.iterdir():
        kept = KEPT / name / path.name
        kept.parent.mkdir(exist_ok=True)
        kept.write_bytes(path.read_bytes())
        print(f"kept: {kept.relative_to(ROOT)}", flush=True)
    return False


def _hex(word: bytes) -> str:
    return "".join(rf"\x{byte:02x}" for byte in word)


def main() -> int:
    """0 if every reader held."""
    given = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    given.add_argument("names", nargs="*", choices=[[], *TARGETS], metavar="NAME", help=", ".join(TARGETS))
    given.add_argument("--seconds", type=int, default=600, help="for each reader")
    given.add_argument("--corpus", type=Path, default=ROOT / ".fuzz")
    asked = given.parse_args()
    held = [look(name, asked.seconds, asked.corpus) for name in asked.names or TARGETS]
    return 0 if all(held) else 1


if __name__ == "__main__":
    raise SystemExit(main())
