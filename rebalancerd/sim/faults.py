"""The verbs of a scenario's script: what owners do, what breaks, and what operators command.

``VERBS`` maps a verb to the function that does it; each takes the world and the words after the verb and raises
ScenarioError for words it cannot use. Hosts are named as declared; a VM by its declared name or its UUID.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from rebalancerd.cluster.decision import CommandKind
from rebalancerd.cluster.units import GIB, MIB
from rebalancerd.sim import disasters
from rebalancerd.sim.adapters import Reach
from rebalancerd.sim.power import NEVER, Bmc
from rebalancerd.sim.scenario import ScenarioError, ScriptLine, seconds
from rebalancerd.sim.telemetry import Distorter, Distortion
from rebalancerd.sim.transfer import PlannedFailure

if TYPE_CHECKING:
    from rebalancerd.sim.world import World

Words = tuple[str, ...]
Verb = Callable[["World", Words], None]
OPERATOR_VERBS = frozenset(kind.value.replace("_", "-") for kind in CommandKind)


def perform(world: "World", line: ScriptLine) -> None:
    """Do one line of the script, and tell it. Raises ScenarioError."""
    if line.verb not in VERBS:
        raise ScenarioError(f"unknown verb {line.verb!r}; there are: {', '.join(sorted(VERBS))}")
    kind = "operator" if line.verb in OPERATOR_VERBS else "event"
    world.story.tell(kind, " ".join((line.verb, *line.arguments)))
    try:
        VERBS[line.verb](world, line.arguments)
    except (IndexError, KeyError, ValueError) as error:
        raise ScenarioError(f"{line.verb} {' '.join(line.arguments)}: {error}") from error


# demand and what owners do


def _demand(world: "World", words: Words) -> None:
    """``demand VM cpu CORES`` · ``memory GIB`` · ``dirty MIB/S`` · ``working-set MIB``."""
    name, what, value = words
    cluster, guests = world.cluster, world.cluster.guests
    row = cluster.rows[cluster.named(name)]
    targets = {
        "cpu": (guests.demand.base, 1.0),
        "memory": (guests.resident, GIB),
        "dirty": (guests.dirty_rate, MIB),
        "working-set": (guests.working_set, MIB),
    }
    array, factor = targets[what]
    array[row] = float(value) * factor
    cluster.changed()


def _vm(world: "World", words: Words) -> str:
    return world.cluster.named(words[0])


def _vm_host(action: Callable[..., None]) -> Verb:
    return lambda world, words: action(world.cluster, _vm(world, words), words[1])


def _of_vm(action: Callable[..., None], **more: bool) -> Verb:
    return lambda world, words: action(world.cluster, _vm(world, words), **more)


def _appears(world: "World", words: Words) -> None:
    world.cluster.appear(_vm(world, words), words[1])


def _reconfigured(world: "World", words: Words) -> None:
    """``vm-reconfigured VM`` : its owner gives it a device that cannot migrate, and libvirt tells it in the XML."""
    world.cluster.reconfigure(_vm(world, words), words[1])


def _qemu_dies(world: "World", words: Words) -> None:
    """``qemu-dies VM source|destination``, in the middle of its migration."""
    disasters.kill_qemu(world.cluster, _vm(world, words), words[1])


def _renamed(world: "World", words: Words) -> None:
    disasters.rename_vm(world.cluster, _vm(world, words), words[1])


# hosts and telemetry


def _reach(reach: Reach) -> Verb:
    return lambda world, words: world.wires.set_reach(words[0], reach)


def _of_host(action: Callable[..., None]) -> Verb:
    return lambda world, words: action(world.cluster, words[0])


def _telemetry(world: "World", words: Words) -> None:
    """``telemetry HOST KIND``, ``telemetry HOST true`` ends it."""
    if words[1] == "true":
        world.wires.distorted.pop(words[0], None)
    else:
        world.wires.distorted[words[0]] = Distorter(Distortion(words[1]))


def _autostart_right(world: "World", words: Words) -> None:
    world.cluster.hosts[words[0]].may_set_autostart = {"on": True, "off": False}[words[1]]


def _right(world: "World", words: Words) -> None:
    """``right HOST on|off``: whether the daemon's identity may migrate guests off that host."""
    world.cluster.hosts[words[0]].may_migrate = {"on": True, "off": False}[words[1]]


def _links(action: Callable[..., None]) -> Verb:
    return lambda world, words: action(world.cluster, words[0], words[1])


# migrations


def _fails(world: "World", words: Words) -> None:
    """``migration-fails VM|* CODE [SHARE] [TIMES]``: the next ones fail with that code after that share."""
    subject = "*" if words[0] == "*" else _vm(world, words)
    share = float(words[2]) if len(words) > 2 else 0.5
    failure = PlannedFailure(int(words[1]), "internal error: scripted failure", share)
    times = int(words[3]) if len(words) > 3 else 1
    world.cluster.migrations.failures.setdefault(subject, []).extend([failure] * times)


def _quirk(kind: str) -> Verb:
    return lambda world, words: world.cluster.migrations.quirks.add((kind, _vm(world, words)))


def _busy(world: "World", words: Words) -> None:
    """``vm-busy VM on|off``: another job holds libvirt's lock."""
    locked = world.cluster.migrations.locked
    (locked.add if words[1] == "on" else locked.discard)(_vm(world, words))


def _postcopy(action: str) -> Verb:
    return lambda world, words: getattr(world.cluster.migrations, action)(_vm(world, words))


def _suspended(world: "World", words: Words) -> None:
    """``suspended SECONDS``: the controller sleeps for that long; nothing of the daemon runs, the cluster does."""
    world.clock.sleep(seconds(words[0]))


# the daemon and its surroundings


def _kill(world: "World", words: Words) -> None:
    """``daemon-kill`` at once; ``daemon-kill after N`` effects from now on."""
    if words:
        world.lifeline.kill_after = world.lifeline.effects + int(words[1])
    else:
        world.kill_daemon()


def _start(world: "World", _words: Words) -> None:
    world.start_daemon()


def _clock_step(world: "World", words: Words) -> None:
    text = words[0]
    world.clock.step_wall(-seconds(text[1:]) if text.startswith("-") else seconds(text.removeprefix("+")))


def _ledger(world: "World", words: Words) -> None:
    world.ledger.full = {"full": True, "ok": False}[words[0]]


def _lease(world: "World", words: Words) -> None:
    world.lease.is_held = {"held": True, "lost": False}[words[0]]


def _pause_file(world: "World", words: Words) -> None:
    world.pause_reason = {"there": "pause file exists", "gone": None}[words[0]]


def _bmc(world: "World", words: Words) -> None:
    """``bmc HOST`` and how it behaves from now on (see sim.power.Bmc)."""
    world.power.machines[words[0]].bmc = Bmc(words[1])


def _button(world: "World", words: Words) -> None:
    """``power-button HOST on|off``: somebody presses it."""
    world.power.by_hand(words[0], on={"on": True, "off": False}[words[1]])


def _takes(what: str) -> Verb:
    def verb(world: "World", words: Words) -> None:
        value = NEVER if words[1] == "never" else seconds(words[1])
        setattr(world.power.machines[words[0]], what, value)

    return verb


# operators


def _command(kind: CommandKind) -> Verb:
    return lambda world, words: world.command(kind, words)


VERBS: dict[str, Verb] = {
    "demand": _demand,
    "vm-appears": _appears,
    "vm-stops": _of_vm(disasters.stop_vm),
    "vm-pauses": _of_vm(disasters.pause_vm, paused=True),
    "vm-resumes": _of_vm(disasters.pause_vm, paused=False),
    "vm-moved": _vm_host(disasters.relocate),
    "vm-migrated": _vm_host(disasters.migrate_foreign),
    "vm-lost": _of_vm(disasters.forget_vm),
    "vm-duplicated": _vm_host(disasters.duplicate_vm),
    "vm-reconfigured": _reconfigured,
    "vm-busy": _busy,
    "vm-undefined": _of_vm(disasters.undefine_vm),
    "vm-renamed": _renamed,
    "qemu-dies": _qemu_dies,
    "namesake": _vm_host(disasters.define_namesake),
    "host-unreachable": _reach(Reach.REFUSED),
    "host-hangs": _reach(Reach.HANGS),
    "host-answers": _reach(Reach.OK),
    "host-dies": _of_host(disasters.kill_host),
    "host-returns": _of_host(disasters.revive_host),
    "libvirtd-restarts": _of_host(disasters.restart_libvirtd),
    "link-cut": _links(disasters.cut_link),
    "link-mended": _links(disasters.mend_link),
    "telemetry": _telemetry,
    "autostart-right": _autostart_right,
    "right": _right,
    "postcopy": _postcopy("begin_postcopy"),
    "postcopy-breaks": _postcopy("break_postcopy"),
    "postcopy-unattended": _postcopy("leave_alone"),
    "suspended": _suspended,
    "migration-fails": _fails,
    "migration-lies": _quirk("lie"),
    "arrives-paused": _quirk("arrive_paused"),
    "abort-refused": _quirk("abort_refused"),
    "abort-ignored": _quirk("abort_ignored"),
    "daemon-kill": _kill,
    "daemon-start": _start,
    "clock-step": _clock_step,
    "ledger": _ledger,
    "lease": _lease,
    "pause-file": _pause_file,
    "bmc": _bmc,
    "power-button": _button,
    "boot-takes": _takes("boot_seconds"),
    "shutdown-takes": _takes("shutdown_seconds"),
    **{kind.value.replace("_", "-"): _command(kind) for kind in CommandKind},
}
