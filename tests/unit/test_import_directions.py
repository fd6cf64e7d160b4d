"""The directions of imports between rooms, read from the source."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "rebalancerd"
ROOMS = {"cluster", "observe", "predict", "plan", "guard", "act", "record", "night", "sim", "lab", "serve", "cli"}
ALLOWED = {
    "cluster": {"cluster"},
    "predict": {"predict", "cluster"},
    "plan": {"plan", "cluster"},
    "guard": {"guard", "cluster"},
    "observe": {"observe", "cluster", "ports", "clock"},
    "act": {"act", "cluster", "ports", "clock"},
    "record": {"record", "cluster", "ports"},
    "night": {"night", "record", "guard", "plan", "predict", "cluster", "cycle", "ports"},
    "lab": {"lab"},
    "ports": {"cluster"},
}
# the harvest measures guests with the daemon's own parts
HARVEST = {"observe", "act", "cluster", "ports", "clock"}
LIBVIRT_ADAPTERS = {"observe/libvirt_", "act/libvirt_", "lab/"}
FORBIDDEN_NAMES = {"utils.py", "helpers.py", "manager.py", "common.py"}


def sources() -> list[Path]:
    return sorted(p for p in PACKAGE.rglob("*.py") if not any(part.startswith("_") for part in p.parts[:-1]))


def imported(tree: ast.AST) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            names.add(node.module or "")
            if node.module == "rebalancerd":
                names |= {f"rebalancerd.{alias.name}" for alias in node.names}
    return names


@pytest.mark.parametrize("path", sources(), ids=lambda p: p.relative_to(PACKAGE).as_posix())
def test_a_room_imports_only_what_it_may(path: Path) -> None:
    """Each room keeps to its directions, and only libvirt adapters name libvirt, inside functions."""
    relative = path.relative_to(PACKAGE).as_posix()
    room = relative.split("/")[0].removesuffix(".py")
    tree = ast.parse(path.read_text())
    ours = {name.split(".")[1] for name in imported(tree) if name.startswith("rebalancerd.")}
    if room in ALLOWED:
        extra = {"observe"} if relative.startswith("act/libvirt_") else set()
        extra |= HARVEST if relative.startswith("lab/harvest/") else set()
        assert ours <= ALLOWED[room] | extra, relative
    if room not in {"cli", "daemon", "serve"} and room in ROOMS:
        assert "cli" not in ours and "daemon" not in ours
    top_level = {
        name.split(".")[0]
        for node in tree.body
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in imported(node)
    }
    assert "libvirt" not in top_level, f"{relative} imports libvirt when it is imported itself"
    if "libvirt" in {name.split(".")[0] for name in imported(tree)}:
        assert any(relative.startswith(prefix) for prefix in LIBVIRT_ADAPTERS), relative


def test_no_room_has_a_drawer_for_everything() -> None:
    """Files are named for what they hold."""
    assert not [p for p in sources() if p.name in FORBIDDEN_NAMES]
