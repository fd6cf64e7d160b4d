"""XML from outside: every parser has limits, and no other may come in."""

import ast
from collections.abc import Callable
from pathlib import Path

import pytest

import rebalancerd
from rebalancerd.lab.spec import METADATA_CHARACTERS, GuestSpec
from rebalancerd.observe import safe_xml
from rebalancerd.observe.capabilities_xml import parse_capabilities
from rebalancerd.observe.domain_xml import parse_domain
from rebalancerd.observe.libvirt_probe import cpu_question
from rebalancerd.observe.safe_xml import DomainXmlError

PACKAGE = Path(rebalancerd.__file__).parent
# the two places that build a parser, and what they call for it
PARSERS = {"observe/safe_xml.py": {"XMLParser"}, "lab/spec.py": {"fromstring"}}
# who reads XML by the first of them
READERS = {
    "observe/capabilities_xml.py",
    "observe/definition_xml.py",
    "observe/domain_xml.py",
    "observe/libvirt_probe.py",
}
MAKING = {
    "fromstring",
    "fromstringlist",
    "XML",
    "XMLID",
    "parse",
    "iterparse",
    "XMLParser",
    "XMLPullParser",
    "TreeBuilder",
}
OTHER_LIBRARIES = (
    "xml.dom",
    "xml.sax",
    "xml.parsers",
    "pyexpat",
    "lxml",
    "defusedxml",
    "xmltodict",
    "bs4",
    "html.parser",
)
HARMLESS = {"xml.sax.saxutils"}  # escapes, parses nothing


def calls_and_imports(path: Path) -> tuple[set[str], set[str], bool]:
    """Parsers of ElementTree that a file makes, XML libraries it imports, whether it uses ``safe_xml.parse``."""
    tree = ast.parse(path.read_text())
    imported: set[str] = set()
    trees: set[str] = set()
    uses_safe = False
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
            trees |= {alias.asname or alias.name for alias in node.names if "ElementTree" in alias.name}
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            imported |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
            trees |= {alias.asname or alias.name for alias in node.names if alias.name == "ElementTree"}
            uses_safe |= node.module.endswith("observe.safe_xml") and any(a.name == "parse" for a in node.names)
    made = {
        node.func.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in MAKING
        and ast.unparse(node.func.value) in trees
    }
    made |= {name.rpartition(".")[2] for name in imported if name.startswith("xml.etree.ElementTree.") and
             name.rpartition(".")[2] in MAKING}  # fmt: skip
    strange = {n for n in imported if n.startswith(OTHER_LIBRARIES) and not any(n.startswith(h) for h in HARMLESS)}
    return made, strange, uses_safe


def test_every_parser_is_known_and_limited() -> None:
    """Read from the source: whoever parses XML does so by safe_xml, or is named here."""
    found = {p.relative_to(PACKAGE).as_posix(): calls_and_imports(p) for p in PACKAGE.rglob("*.py")}

    made = {name: calls - {"TreeBuilder"} for name, (calls, _, _) in found.items() if calls - {"TreeBuilder"}}
    assert made == PARSERS
    assert {name: strange for name, (_, strange, _) in found.items() if strange - {"xml.sax.saxutils"}} == {}
    assert {name for name, (_, _, uses) in found.items() if uses} == READERS


DEEP, MANY = safe_xml.MAX_DEPTH + 1, safe_xml.MAX_ELEMENTS + 1
LAUGHS = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 10))
HOSTILE: dict[str, tuple[Callable[[str], str], str]] = {
    "billion laughs": (lambda t: f'<!DOCTYPE {t} [<!ENTITY l0 "ha">{LAUGHS}]><{t}>&l9;</{t}>', "DOCTYPE"),
    "external entity": (lambda t: f'<!DOCTYPE {t} [<!ENTITY x SYSTEM "file:///etc/passwd">]><{t}>&x;</{t}>', "DOCTYPE"),
    "parameter entity": (lambda t: f'<!DOCTYPE {t} [<!ENTITY % p SYSTEM "http://127.0.0.1:1/">%p;]><{t}/>', "DOCTYPE"),
    "external subset": (lambda t: f'<!DOCTYPE {t} SYSTEM "http://127.0.0.1:1/x.dtd"><{t}/>', "DOCTYPE"),
    "deep": (lambda t: f"<{t}>{'<a>' * DEEP}{'</a>' * DEEP}</{t}>", "deep"),
    "many": (lambda t: f"<{t}>{'<a/>' * MANY}</{t}>", "more than"),
    "long": (lambda t: f"<{t}>{'x' * safe_xml.MAX_CHARACTERS}</{t}>", "characters"),
    "unknown entity": (lambda t: f"<{t}>&nothing;</{t}>", "not well-formed"),
}


@pytest.mark.parametrize("case", HOSTILE)
@pytest.mark.parametrize(
    ("tag", "read"),
    [
        ("domain", lambda xml: parse_domain(xml, persistent=True, autostart=None, has_managed_save=None)),
        ("capabilities", parse_capabilities),
        ("domain", cpu_question),
    ],
    ids=["domain", "capabilities", "cpu"],
)
def test_each_reader_refuses(case: str, tag: str, read: Callable[[str], object]) -> None:
    make, word = HOSTILE[case]

    with pytest.raises(DomainXmlError, match=word):
        read(make(tag))


@pytest.mark.parametrize("case", ["billion laughs", "external entity", "deep", "long"])
def test_the_lab_refuses_too(case: str) -> None:
    make, word = HOSTILE[case]

    with pytest.raises(ValueError, match=word) as told:
        GuestSpec("web", metadata_xml=make("a"))
    assert len(str(told.value)) < METADATA_CHARACTERS / 100
