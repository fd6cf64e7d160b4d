"""Where definitions of shut-off domains may stand: the guard's word on the last snapshot, by the policies in force."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from rebalancerd.cluster.refusal import Code, Refusal, about_vm
from rebalancerd.cluster.sample import Definition
from rebalancerd.cluster.snapshot import Snapshot
from rebalancerd.guard.definition_checks import homes
from rebalancerd.observe.owner import declared_owner
from rebalancerd.observe.policy_xml import effective_policy
from rebalancerd.observe.settings import PolicyRule


class DefinitionHomes:
    """``blocked``: hosts that take nothing because of power."""

    def __init__(
        self,
        snapshot: Callable[[], Snapshot | None],
        blocked: Callable[[], Mapping[str, Refusal]],
        rules: Sequence[PolicyRule] = (),
    ) -> None:
        self._snapshot, self._blocked, self._rules = snapshot, blocked, tuple(rules)

    def __call__(self, host: str, definition: Definition) -> tuple[str, ...] | Refusal:
        """Hosts on which it may be defined, best first, or why it stays."""
        seen, facts = self._snapshot(), definition.facts
        if seen is None:
            return about_vm(Code.WARMING_UP, facts.uuid, "no cycle was made yet")
        declared, owner = declared_owner(facts.name, self._rules)
        policy = effective_policy(facts.name, facts.policy, self._rules)
        facts = replace(facts, owner=owner if declared else facts.owner, policy=policy)
        return homes(replace(definition, facts=facts), host, seen, self._blocked())
