"""The audit of dependencies: what it says can be believed, above all when nothing could be looked up."""

import json
import re
import sys
from pathlib import Path

import pytest

from tests.security import audit

LOCK = audit.ROOT / "requirements.lock"


def fake(tmp_path: Path, answers: dict[str, object]) -> list[str]:
    """A pip-audit that answers by service; an answer that is no dictionary goes to standard error."""
    program = tmp_path / "pip_audit.py"
    program.write_text(
        f"import sys, json\nanswers = json.loads({json.dumps(json.dumps(answers))})\n"
        "answer = answers[sys.argv[sys.argv.index('--vulnerability-service') + 1]]\n"
        "print(json.dumps(answer)) if isinstance(answer, dict) else sys.exit(str(answer))\n"
    )
    return [sys.executable, str(program)]


def report(names: set[str], vulnerable: str | None = None, skipped: bool = False) -> dict[str, object]:
    known = [{"id": "CVE-1", "fix_versions": ["2"]}]
    return {
        "dependencies": [
            {"name": n, "skip_reason": "not found"}
            if skipped
            else {"name": n.replace("-", "_"), "version": "1", "vulns": known if n == vulnerable else []}
            for n in sorted(names)
        ]
    }


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    monkeypatch.setattr(audit, "LOCKS", (LOCK.name,))
    return audit.pinned(LOCK)


def test_all_known_and_sound_is_0(names: set[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert audit.main(fake(tmp_path, {"pypi": report(names)})) == 0
    assert f"{len(names)} packages looked up, 0 vulnerabilities known" in capsys.readouterr().out


def test_a_vulnerable_one_is_1(names: set[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert audit.main(fake(tmp_path, {"pypi": report(names, "numpy")})) == 1
    assert "numpy 1: CVE-1, mended in 2" in capsys.readouterr().out


def test_the_second_service_helps_out(names: set[str], tmp_path: Path) -> None:
    answers: dict[str, object] = {"pypi": report(names, skipped=True), "osv": report(names)}
    assert audit.main(fake(tmp_path, answers)) == 0


@pytest.mark.parametrize("second", ["no such host", {"dependencies": []}])
def test_nothing_known_is_no_success(
    names: set[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], second: object
) -> None:
    assert audit.main(fake(tmp_path, {"pypi": report(names, skipped=True), "osv": second})) == 2
    assert f"NOT AUDITED: {len(names)} packages" in capsys.readouterr().out


def test_one_that_was_left_out_is_no_success(names: set[str], tmp_path: Path) -> None:
    partly = report(names - {"numpy"})
    assert audit.main(fake(tmp_path, {"pypi": partly, "osv": "no"})) == 2


@pytest.mark.parametrize("name", audit.LOCKS)
def test_every_lock_is_pinned_by_hash_and_names_no_place(name: str) -> None:
    text = (audit.ROOT / name).read_text()
    entries = re.split(r"\n(?=\S)", text.strip())

    assert entries
    assert not re.search(r"https?://|--(?:extra-)?index-url|--find-links", text)
    for entry in entries:
        assert re.match(r"[A-Za-z0-9._-]+(\[[^]]+\])?==\S+", entry), entry
        assert "--hash=sha256:" in entry, entry
