"""Host power over the API and the command line: told as it is, ordered by rows of the ledger, refused with the reason."""

from collections.abc import Iterator
from typing import Any

import pytest
from typer.testing import CliRunner

from rebalancerd.cli import client
from rebalancerd.cli.app import app
from rebalancerd.cluster.decision import CommandKind
from rebalancerd.cluster.policy import Mode
from rebalancerd.cluster.power import PowerPhase
from rebalancerd.serve import power
from rebalancerd.serve.commands import Commands
from rebalancerd.serve.control import Control, Surroundings
from rebalancerd.serve.metrics import Metrics
from rebalancerd.serve.problem import ProblemError
from rebalancerd.sim.power import NEVER
from rebalancerd.sim.world import World
from tests.unit.act.power.power_cluster import order, pass_test, seconds_until, spec


def control_of(world: World) -> Control:
    about = Surroundings(hosts=("a", "b", "c"), controller="sim", started_at=0.0, power=world.power_round)
    return Control(loop=world.loop, ledger=world._sql, clock=world.clock, about=about)  # type: ignore[arg-type]


@pytest.fixture
def world() -> Iterator[World]:
    with World(spec()) as made:
        made.run(180)
        yield made


def test_an_untested_host_is_refused_at_once_and_a_test_is_not(world: World) -> None:
    control = control_of(world)
    commands = Commands(control)
    with pytest.raises(ProblemError) as told:
        power.sleep(control, commands, "me", "c", reason="", test=False)
    assert told.value.code == "POWER_UNTESTED"
    assert world.ledger.operator_state(world.clock.wall()).power == ()
    assert power.sleep_verdict(control, commands, "c", test=True).would_sleep
    answer = power.sleep(control, commands, "me", "c", reason="before the first night", test=True)
    assert answer.kind == CommandKind.POWER_TEST.value
    seconds_until(world, "c", PowerPhase.ASLEEP)
    seconds_until(world, "c", PowerPhase.AWAKE)


def test_hosts_without_power_control_and_strangers_are_named(world: World) -> None:
    control = control_of(world)
    commands = Commands(control)
    assert power.sleep_verdict(control, commands, "a", test=True).code == "no_power_control"
    with pytest.raises(ProblemError) as told:
        power.sleep_verdict(control, commands, "nowhere", test=True)
    assert told.value.code == "UNKNOWN_HOST"
    with pytest.raises(ProblemError) as told:
        power.wake(control, commands, "me", "c", reason="")
    assert told.value.code == "NOT_ASLEEP"


def test_a_mode_that_moves_nothing_powers_nothing() -> None:
    with World(spec(mode=Mode.RECOMMEND)) as world:
        world.run(180)
        control = control_of(world)
        with pytest.raises(ProblemError) as told:
            power.sleep(control, Commands(control), "me", "c", reason="", test=True)
        assert told.value.code == "MODE_MAY_NOT_ACT"


def test_a_sleeper_is_no_fault_and_a_failed_one_is(world: World) -> None:
    pass_test(world)
    order(world, "power_sleep")
    seconds_until(world, "c", PowerPhase.ASLEEP)
    world.run(world.clock.monotonic() + 180)
    assert [c for c in control_of(world).checks() if c.subject == "c"] == []
    world.power.machines["c"].boot_seconds = NEVER
    order(world, "power_wake")
    seconds_until(world, "c", PowerPhase.FAILED)
    found = [c for c in control_of(world).checks() if c.subject == "c" and c.code == "HOST_POWER"]
    assert [c.severity for c in found] == ["err"] and "did not come back" in found[0].message
    metrics = Metrics()
    metrics.observe_power(control_of(world).power_records())
    value = metrics.registry.get_sample_value
    assert value("rebalancerd_host_power", {"host": "c", "phase": "failed"}) == 1
    assert value("rebalancerd_host_power_off_disabled", {"host": "c"}) == 1


def test_without_any_power_it_is_said(world: World) -> None:
    control = control_of(world)
    bare = Control(
        loop=control.loop,
        ledger=control.ledger,
        clock=control.clock,
        about=Surroundings(hosts=("a",), controller="sim", started_at=0.0),
    )
    assert power.power_answer(bare).hosts == ()
    with pytest.raises(ProblemError) as told:
        power.wake(bare, Commands(bare), "me", "a", reason="")
    assert told.value.code == "NO_POWER"


class Asked:
    """Stands for the daemon at the other end of the socket."""

    def __init__(self, control: Control) -> None:
        self.control, self.commands = control, Commands(control)
        self.posted: list[tuple[str, dict[str, Any]]] = []

    def get(self, path: str, **query: Any) -> dict[str, Any]:
        if path == "power":
            return power.power_answer(self.control).model_dump(mode="json")
        assert path == "power/sleep"
        return power.sleep_verdict(self.control, self.commands, query["host"], test=query["test"]).model_dump()

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        self.posted.append((path, body))
        return {"message": "noted"}


def test_the_commands_ask_for_what_they_are_called(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = Asked(control_of(world))
    for module in ("rebalancerd.cli.power", "rebalancerd.cli.command"):
        monkeypatch.setattr(f"{module}.Client", lambda _path: asked)
    assert client.Client is not None

    def run(*words: str) -> str:
        ended = CliRunner().invoke(app, ["power", *words])
        assert ended.exit_code == 0, ended.output
        return ended.output

    status = run("status")
    assert "awake" in status and "120 s (assumed)" in status
    assert "would not be put to sleep: power_untested" in run("sleep", "c", "--dry-run")
    assert "asked twice" in run("test", "c", "--dry-run")
    assert asked.posted == []
    for verb in ("sleep", "test", "wake"):
        run(verb, "c", "--reason", "because")
    assert asked.posted == [(f"power-{verb}", {"host": "c", "reason": "because"}) for verb in ("sleep", "test", "wake")]


def test_which_model_of_a_hosts_power_is_used_is_told(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    about = Surroundings(
        hosts=("a", "b", "c"),
        controller="sim",
        started_at=0.0,
        power_model=lambda host: f"measured by RAPL: {host.name}",
    )
    control = Control(loop=world.loop, ledger=world._sql, clock=world.clock, about=about)  # type: ignore[arg-type]
    assert power.power_answer(control).models[0] == ("a", "measured by RAPL: a")
    monkeypatch.setattr("rebalancerd.cli.power.Client", lambda _path: Asked(control))
    ended = CliRunner().invoke(app, ["power", "status"])
    assert "no host's power is configured" in ended.output
    assert "power model: c: measured by RAPL: c" in ended.output
