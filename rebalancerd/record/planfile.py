"""Plan files: a plan with its format version and digest, so that a file edited by hand or cut short is found out."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rebalancerd.cluster.plan import PLAN_FORMAT, Plan
from rebalancerd.record.codec import PLANS, CodecError
from rebalancerd.record.jsonfile import JsonFileError, read_tree, write_whole

KIND = "rebalancerd plan"
MAX_BYTES = 8 * 1024 * 1024


class PlanFileError(ValueError):
    """Not a plan that may be used; the message says what is wrong, and ``read_plan`` puts the file's name before it."""


def document(plan: Plan) -> dict[str, Any]:
    """The plan as JSON's own types, with format and digest around it. Raises PlanFileError."""
    try:
        tree = PLANS.tree(plan)
    except CodecError as error:
        raise PlanFileError(str(error)) from error
    return {"kind": KIND, "format": PLAN_FORMAT, "digest": plan.digest, "plan": tree}


def parse_document(tree: Mapping[str, Any]) -> Plan:
    """The plan of a document. Raises PlanFileError and nothing else, whatever the document holds."""
    if not isinstance(tree, Mapping) or tree.get("kind") != KIND:
        raise PlanFileError(f"is not a plan file: it does not say kind {KIND!r}")
    if tree.get("format") != PLAN_FORMAT or isinstance(tree.get("format"), bool):
        raise PlanFileError(f"has format {tree.get('format')!r:.40}; this version reads format {PLAN_FORMAT}")
    unknown = sorted(map(str, set(tree) - {"kind", "format", "digest", "plan"}))
    if unknown:
        raise PlanFileError(f"holds something unknown: {unknown[0][:60]!r}")
    try:
        plan = PLANS.read(json.dumps(tree.get("plan"), allow_nan=False))
    except (CodecError, ValueError, TypeError, RecursionError) as error:
        raise PlanFileError(f"does not hold a plan: {error}") from error
    if plan.format != PLAN_FORMAT:
        raise PlanFileError(f"holds a plan of format {plan.format}; this version reads format {PLAN_FORMAT}")
    if plan.digest != tree.get("digest"):
        raise PlanFileError(
            f"was changed after it was written: its content has digest {plan.digest}, "
            f"but it says {str(tree.get('digest'))[:40]!r}"
        )
    return plan


def write_plan(path: Path, plan: Plan) -> None:
    """Write a plan file whole or not at all. Raises PlanFileError, OSError."""
    text = json.dumps(document(plan), ensure_ascii=True, indent=2, allow_nan=False) + "\n"
    write_whole(path, text)


def read_plan(path: Path) -> Plan:
    """The plan of a file. Raises PlanFileError naming the file: unreadable, cut short, edited, or of another format."""
    try:
        tree = read_tree(path, MAX_BYTES)
    except JsonFileError as error:
        raise PlanFileError(str(error)) from error
    if not isinstance(tree, dict):
        raise PlanFileError(f"{path}: is not a plan file")
    try:
        return parse_document(tree)
    except PlanFileError as error:
        raise PlanFileError(f"{path}: {error}") from error
