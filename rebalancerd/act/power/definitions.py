"""Definitions of shut-off domains on a host that is to sleep: moved to another host one by one, by libvirt's own means.

The intent is durable first, then the domain is asked about once more, then the call is made. How it ended is decided by
looking at both hosts, never by what the call returned; so a daemon that was killed in between settles it the same way.
Nothing here undefines anything: one that stands on both hosts, or on neither, is named and left to people.
"""

from collections.abc import Callable

import structlog

from rebalancerd.act.power.emptiness import Asked
from rebalancerd.act.power.hands import Hands
from rebalancerd.act.preflight import belongings, clash, identities
from rebalancerd.cluster.power import DefinitionMove, PowerRecord
from rebalancerd.cluster.refusal import Code, Refusal, about_host, about_vm
from rebalancerd.cluster.sample import Definition, HostInventory
from rebalancerd.cluster.vm import DomainState
from rebalancerd.ports import HostError, HypervisorWrite

log = structlog.get_logger(__name__)

SETTLE_SECONDS = 60.0  # a call that was handed over may still be at work for so long
Homes = Callable[[str, Definition], tuple[str, ...] | Refusal]


def nowhere(_host: str, definition: Definition) -> Refusal:
    """Homes of definitions where nobody knows any."""
    return about_vm(Code.NO_DESTINATION, definition.facts.uuid, "no other host is known for it")


class Definitions:
    """``homes``: where a definition may stand by what is declared, best first, or why it stays.

    ``write`` None: nothing can be moved, for there is no way to.
    """

    def __init__(self, hands: Hands, write: HypervisorWrite | None, homes: Homes) -> None:
        self._hands, self._write, self._homes = hands, write, homes

    def instead_of(self, asked: Asked, record: PowerRecord) -> Refusal | None:
        """Where only definitions keep a host on and they are to be moved, one of them is.

        None: it is done, look again; else why the host stays on.
        """
        refusal, wanted = asked.refusal, self._hands.settings.move_shut_off_definitions
        if refusal is None or refusal.code is not Code.SHUT_OFF_DEFINITIONS or asked.inventory is None:
            return refusal
        if not wanted or self._write is None:
            return refusal
        return self._step(record, asked.inventory)

    def _step(self, record: PowerRecord, inventory: HostInventory) -> Refusal | None:
        host = record.host
        uuid = min((name, uuid) for uuid, name, state in inventory.domains if not state.is_active)[1]
        try:
            chosen = self._chosen(host, uuid, inventory)
            if isinstance(chosen, Refusal):
                return chosen
            record = self._hands.book.note(host, definition=chosen)
            if self._hands.read.locate(host, uuid) is not DomainState.SHUTOFF:
                self._hands.book.note(host, definition=None)
                return about_host(Code.HOST_NOT_EMPTY, host, f"{chosen.vm_name!r} is not shut off any more")
            said = self._call(chosen)
        except HostError as error:
            return about_host(Code.HOST_UNREACHABLE, host, str(error))
        return self.settle(record, returned=True, said=said)

    def _call(self, move: DefinitionMove) -> str:
        """Hand it to libvirt; what that says is only words."""
        assert self._write is not None
        try:
            self._write.move_definition(move.source, move.destination, move.vm_uuid)
        except HostError as error:
            return str(error)
        return "libvirt says it did"

    def _chosen(self, host: str, uuid: str, here: HostInventory) -> DefinitionMove | Refusal:
        """The first host that has what it needs."""
        definition = self._hands.read.definition(host, uuid)
        if definition is None:
            return about_host(Code.VM_GONE, host, f"the definition {uuid} is gone from it")
        homes = self._homes(host, definition)
        if isinstance(homes, Refusal):
            return homes
        why: Refusal | None = None
        for destination in homes:
            facts = definition.facts
            move = DefinitionMove(
                vm_uuid=uuid,
                vm_name=facts.name,
                source=host,
                destination=destination,
                autostart=bool(facts.autostart),
                at=self._hands.clock.wall(),
            )
            try:
                there = self._hands.read.inventory(destination)
                why = identities(move, here, there) or clash(move, facts, there) or belongings(move, facts, there)
                if why is None and move.autostart and self._write and not self._write.may_set_autostart(destination):
                    detail = f"its autostart flag would be lost: setting it on {destination} is not allowed"
                    why = about_vm(Code.AUTOSTART_RIGHT, uuid, detail, destination)
            except HostError as error:
                why = about_vm(Code.HOST_UNREACHABLE, uuid, str(error), destination)
            if why is None:
                return move
        return why or about_vm(Code.NO_DESTINATION, uuid, "no other host may have it")

    def settle(self, record: PowerRecord, *, returned: bool = False, said: str = "") -> Refusal | None:
        """Look where the definition stands. None: where it should, with its flag; else why not, the intent kept in doubt.

        ``returned``: the call has, so that what is seen is final.
        """
        move = record.definition
        if move is None:
            return None
        what = f"the definition of {move.vm_name!r} ({move.vm_uuid})"
        try:
            here, there = (self._hands.read.locate(h, move.vm_uuid) for h in (move.source, move.destination))
            if here is DomainState.ABSENT and there not in (DomainState.ABSENT, DomainState.UNKNOWN):
                if move.autostart:
                    if self._write is None:
                        return about_host(Code.AUTOSTART_RIGHT, record.host, f"nothing can set the flag of {what}")
                    self._write.set_autostart(move.destination, move.vm_uuid, True)
                self._hands.book.note(record.host, definition=None)
                log.info("definition_moved", vm=move.vm_uuid, source=move.source, destination=move.destination)
                return None
        except HostError as error:
            return about_host(Code.HOST_UNREACHABLE, record.host, f"where {what} stands is not seen: {error}")
        late = returned or self._hands.clock.wall() - move.at > SETTLE_SECONDS
        if DomainState.UNKNOWN in (here, there) or not late:
            return about_host(Code.POWER_BUSY, record.host, f"{what} is being moved to {move.destination}")
        if there is DomainState.ABSENT and here is not DomainState.ABSENT:
            self._hands.book.note(record.host, definition=None)
            return about_host(Code.LIBVIRT_REFUSED, record.host, f"{what} was not moved to {move.destination}: {said}")
        nowhere = here is DomainState.ABSENT
        where = f"on neither {move.source} nor" if nowhere else f"on {move.source} ({here.value}) and"
        why = f"{what} stands {where} {move.destination}{'' if nowhere else f' ({there.value})'}"
        if record.disabled is None:
            self._hands.book.note(record.host, disabled=why)
        return about_host(Code.VM_GONE if nowhere else Code.DUPLICATE_VM, record.host, f"{why}: put it right by hand")
