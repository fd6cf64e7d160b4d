"""The documents say what the program has: every code, metric and command, and no command that it has not."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main

from rebalancerd.cli.app import app
from rebalancerd.cluster.refusal import Code
from rebalancerd.observe.agent import HostCollector
from rebalancerd.observe.agent_dirty import DirtyMeter
from rebalancerd.observe.agent_power import RaplCollector
from rebalancerd.observe.agent_surroundings import SurroundingsCollector
from rebalancerd.serve.health import HealthCode
from rebalancerd.serve.metrics import Metrics

ROOT = Path(__file__).parents[2]
GUIDE = ROOT / "docs" / "operator-guide.md"
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"^```[^\n]*\n(.*?)^```", re.M | re.S)
CODE = re.compile(r"`([^`\n]+)`")
PROGRAM = re.compile(r"^(?:[$#] +)?(?:sudo +)?(?:runuser -u \S+ -- +)?(?:\S*/)?rebalancerd +(?P<rest>.+)$")
CLI: Any = typer.main.get_command(app)  # typer may bring a click of its own, so no class of click is named here


def quoted(text: str) -> Iterator[str]:
    """What stands behind ``rebalancerd`` in code blocks and code spans."""
    prose = FENCE.sub("", text)
    indented = "\n".join(line for line in prose.splitlines() if line.startswith("    "))
    blocks = "\n".join((*FENCE.findall(text), indented))
    lines = [part for line in re.sub(r"\\\n\s*", " ", blocks).splitlines() for part in line.split("&&")]
    for shown in (*CODE.findall(prose), *lines):
        found = PROGRAM.match(shown.strip())
        if found and re.match(r"[a-z-]", found["rest"]):
            yield found["rest"]


def of_tables(text: str) -> Iterator[str]:
    """Commands in the first column of docs/cli.md, with brackets round what is optional."""
    body = text[text.index("## See") : text.index("## What doctor checks")]
    for row in re.findall(r"^\| (.*?) (?<!\\)\|", body, re.M):
        for span in CODE.findall(row):
            yield re.sub(r"\[(-[^\]]*)\]", r"\1", span).replace("\\|", "|")


def tokens(text: str) -> list[str]:
    """Words up to a pipe, a redirection, a comment or the next command."""
    words = shlex.split(text, comments=True)
    stop = next((i for i, word in enumerate(words) if word in {"|", "&", "&&", ";", ">", "2>", "…"}), len(words))
    return words[:stop]


def fault(text: str) -> str | None:
    """What is wrong with a quoted command, None if the program has it with these options."""
    words, command = tokens(text), CLI
    while hasattr(command, "commands") and words and not words[0].startswith("-"):
        name = words.pop(0)
        if name not in command.commands:
            return None if name in {"…", "..."} else f"there is no command {name!r}"
        command = command.commands[name]
    flags = {"-h": True, "--help": True}
    for option in (p for p in command.params if p.param_type_name == "option"):
        flags |= dict.fromkeys((*option.opts, *option.secondary_opts), bool(option.is_flag))
    free = 0
    while words:
        word, _, value = words.pop(0).partition("=")
        if not word.startswith("-"):
            free += 1
        elif word not in flags:
            return f"{command.name} has no option {word}"
        elif not flags[word] and not value:
            if not words:
                return f"{word} lacks its value"
            words.pop(0)
    most = sum(p.nargs for p in command.params if p.param_type_name == "argument")
    return f"{command.name} takes {most} arguments, not {free}" if free > most else None


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_quoted_command_exists_with_its_options(document: Path) -> None:
    wrong = [f"rebalancerd {rest}: {why}" for rest in quoted(document.read_text("utf-8")) if (why := fault(rest))]

    assert wrong == []


def test_the_guide_and_the_manual_quote_commands_at_all() -> None:
    """The test above must not pass because nothing was found."""
    assert len(list(quoted(GUIDE.read_text("utf-8")))) > 40
    assert len(list(of_tables((ROOT / "docs" / "cli.md").read_text("utf-8")))) > 20


@pytest.mark.parametrize(
    "wrong",
    ["fly", "status --loud", "config mend", "drain h1 h2", "plan -o"],
)
def test_a_command_that_does_not_exist_is_found(wrong: str) -> None:
    assert fault(wrong) is not None


def test_the_manual_lists_every_command_and_only_real_options() -> None:
    listed = list(of_tables((ROOT / "docs" / "cli.md").read_text("utf-8")))

    assert [f"{shown}: {why}" for shown in listed if (why := fault(shown))] == []
    assert set(CLI.commands) - {shown.split()[0] for shown in listed} == set()


def test_every_refusal_code_has_its_row() -> None:
    text = GUIDE.read_text("utf-8")

    assert [code.value for code in Code if not re.search(rf"^\| `{code.value}` \|", text, re.M)] == []


def test_every_health_code_has_its_row() -> None:
    text = GUIDE.read_text("utf-8")

    assert [code.value for code in HealthCode if not re.search(rf"^\| `{code.value}` \|", text, re.M)] == []


def test_every_metric_is_listed_and_no_other(tmp_path: Path) -> None:
    names = set()
    around = SurroundingsCollector(["/etc"], ["localhost"])
    package = tmp_path / "intel-rapl:0"
    package.mkdir()
    for name, text in (("name", "package-0"), ("energy_uj", "1"), ("max_energy_range_uj", "2")):
        (package / name).write_text(text)
    for collector in (Metrics().registry, HostCollector(), around, DirtyMeter(), RaplCollector(tmp_path)):
        for family in collector.collect():
            names.add(family.name + ("_total" if family.type == "counter" else ""))
    section = GUIDE.read_text("utf-8").partition("\n## Metrics\n")[2].partition("\n## ")[0]

    assert set(re.findall(r"\brebalancerd_[a-z_]+", section)) == names


def test_every_log_event_of_the_table_is_one_of_the_program() -> None:
    section = GUIDE.read_text("utf-8").partition("\n## Logs\n")[2].partition("\n## ")[0]
    source = "".join(path.read_text("utf-8") for path in (ROOT / "rebalancerd").rglob("*.py"))
    events = [e for row in re.findall(r"^\| (`.*?) \|", section, re.M) for e in re.findall(r"`([a-z_]+)`", row)]

    assert len(events) > 15
    assert [event for event in events if not re.search(rf'log\.\w+\(\s*"{event}"', source)] == []
