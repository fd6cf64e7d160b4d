"""The harvest's own logic: families and their file, settings from a seed, the agenda, the file of rows, the slowdown."""

import csv
import itertools
from random import Random

import pytest

from rebalancerd.cluster.cost import MigrationOptions
from rebalancerd.cluster.migration import Completion
from rebalancerd.lab import LabError, Phase
from rebalancerd.lab.channel import GuestProgress
from rebalancerd.lab.harvest.agenda import REPEATS, blocks
from rebalancerd.lab.harvest.families import BUILT_IN, Family, load_families
from rebalancerd.lab.harvest.machine import Reading, between
from rebalancerd.lab.harvest.rowfile import COLUMNS, RowFile
from rebalancerd.lab.harvest.run import Journey, progress_unit
from rebalancerd.lab.harvest.setting import LINK_MBIT, Load, draw_setting
from rebalancerd.lab.spec import check_phases


class TestFamilies:
    def test_the_built_in_ones_are_those_of_the_literature(self):
        assert {f.order for f in BUILT_IN} == {
            "sequential",
            "random",
            "hot",
            "unchanged",
            "reader",
            "growing",
            "churn",
        }
        assert len({f.name for f in BUILT_IN}) == len(BUILT_IN) >= 8

    def test_a_file_names_others(self, tmp_path):
        path = tmp_path / "w.toml"
        path.write_text(
            '[[family]]\nname = "database"\norder = "hot"\nintensity = [0.1, 2]\non_seconds = [1, 2]\noff_seconds = [1, 3]\n'
            'off_order = "sequential"\noff_intensity = [0.0, 0.5]\n[[family]]\nname = "quiet"\nintensity = [0, 0]\n'
        )
        database, quiet = load_families(path)
        assert database.name == "database"
        assert database.off_order == "sequential"
        assert quiet.intensity == (0, 0)

    @pytest.mark.parametrize(
        ("text", "told"),
        [
            ("", "one or more"),
            ("x = 1", "one or more"),
            ("[[family]\n", "line"),
            ("[[family]]\n", "family 1: name"),
            ('[[family]]\nname = "a"\nspeed = 1', "unknown keys speed"),
            ('[[family]]\nname = "A b"', "family 1"),
            ('[[family]]\nname = "a"\norder = "backwards"', "order"),
            ('[[family]]\nname = "a"\nintensity = [2, 1]', "intensity must be"),
            ('[[family]]\nname = "a"\nintensity = [-1, 1]', "intensity must be"),
            ('[[family]]\nname = "a"\non_seconds = [1, 2]', "go together"),
            ('[[family]]\nname = "a"\nweight = 0', "weight"),
            ('[[family]]\nname = "a"\n[[family]]\nname = "a"', "same name"),
        ],
    )
    def test_what_is_wrong_with_it_is_named(self, tmp_path, text, told):
        path = tmp_path / "w.toml"
        path.write_text(text)
        with pytest.raises(LabError, match=told) as caught:
            load_families(path)
        assert str(path) in str(caught.value)

    def test_a_missing_file_is_named(self, tmp_path):
        with pytest.raises(LabError, match="nowhere"):
            load_families(tmp_path / "nowhere.toml")


class TestSettings:
    def test_every_setting_can_be_run(self):
        random = Random(5)
        for memory in (128, 256, 512, 1024):
            for _ in range(100):
                setting = draw_setting(random, BUILT_IN, memory, guests=random.choice((1, 2)))
                assert LINK_MBIT[0] <= setting.link_mbit <= LINK_MBIT[1]
                assert 0.05 <= setting.max_downtime_seconds <= 0.5
                assert 10 <= setting.deadline_seconds <= 30
                for load in setting.loads:
                    check_phases(load.phases, memory)

    def test_the_same_seed_gives_the_same_agenda(self):
        first, second, other = (list(itertools.islice(blocks(s, BUILT_IN), 6)) for s in (1, 1, 2))
        assert first == second
        assert first != other

    def test_an_agenda_repeats_settings_and_pairs_guests(self):
        items = [item for block in itertools.islice(blocks(1, BUILT_IN), 50) for item in block.items]
        assert sum(item.repeats == REPEATS for item in items) == 50
        assert sum(item.guests == 2 for item in items) == 25
        assert len({item.key for item in items}) == len(items)

    def test_guests_of_a_block_are_alike(self):
        for block in itertools.islice(blocks(3, BUILT_IN), 20):
            assert {item.setting.memory_mib for item in block.items} == {block.memory_mib}


class TestRowFile:
    def test_rows_survive_and_are_not_made_again(self, tmp_path):
        path = tmp_path / "rows.csv"
        RowFile(path).append(
            {"id": "a", "outcome": "succeeded", "seconds": 1.5, "auto_converge": True, "note": 'x,"y"'}
        )
        again = RowFile(path)
        again.append({"id": "b", "outcome": "deadline"})
        rows = list(csv.DictReader(path.read_text().splitlines()))
        assert [(r["id"], r["outcome"]) for r in rows] == [("a", "succeeded"), ("b", "deadline")]
        assert (rows[0]["seconds"], rows[0]["auto_converge"], rows[0]["note"]) == ("1.5", "1", 'x,"y"')
        assert RowFile(path).outcomes == {"a": "succeeded", "b": "deadline"}

    def test_a_row_cut_by_a_crash_is_dropped(self, tmp_path):
        path = tmp_path / "rows.csv"
        RowFile(path).append({"id": "a", "outcome": "succeeded"})
        whole = path.read_bytes()
        path.write_bytes(whole + b"b,setting,1")
        assert RowFile(path).outcomes == {"a": "succeeded"}
        assert path.read_bytes() == whole

    def test_a_file_of_another_kind_is_left_alone(self, tmp_path):
        path = tmp_path / "rows.csv"
        path.write_text("x,y\n1,2\n")
        with pytest.raises(LabError, match="columns"):
            RowFile(path)
        assert path.read_text() == "x,y\n1,2\n"

    def test_columns_stand_once(self):
        assert len(set(COLUMNS)) == len(COLUMNS)


def journey(*, made, seconds=10.0, total=8.0, order="sequential", rate=20.0, cpu=0.0):
    """A guest that dirtied 20 MiB/s before, and ``made`` MiB over the ten seconds."""
    load = Load(
        family="x",
        phases=(Phase(seconds=60, working_set_mib=64, dirty_mib_per_second=rate, cpu_percent=cpu, order=order),),
    )
    found = Journey(name="g", vm_uuid="u", load=load, options=MigrationOptions())
    mib = 2**20
    found.steady = GuestProgress(at=0.0, slices=0, dirtied_bytes=0, work_seconds=0.0)
    found.before = GuestProgress(at=5.0, slices=100, dirtied_bytes=100 * mib, work_seconds=4.0)
    found.after = GuestProgress(at=15.0, slices=280, dirtied_bytes=(100 + made) * mib, work_seconds=10.0)
    found.begun, found.ended = 5.0, 5.0 + seconds
    found.completion = Completion(total_seconds=total)
    return found


class TestSlowdown:
    def test_a_guest_that_lost_nothing(self):
        assert journey(made=200).slowdown() == 0.0

    def test_progress_lost_over_the_time_of_the_migration(self):
        """160 of 200 MiB in ten seconds: two seconds lost, of a migration of eight."""
        assert journey(made=160).slowdown() == pytest.approx(0.25)

    def test_without_an_answer_it_is_not_known(self):
        silent = journey(made=160)
        silent.after = None
        assert silent.slowdown() is None

    def test_what_progress_is_counted_in(self):
        assert progress_unit(journey(made=0).load) == "dirtied_bytes"
        assert progress_unit(journey(made=0, rate=0.0).load) == "slices"
        assert progress_unit(journey(made=0, order="reader", cpu=90.0).load) == "work_seconds"


def test_what_else_ran_is_told_and_marked():
    before = Reading(at=0.0, busy=100.0, stolen=1.0, lab=50.0, pressure=10.0)
    calm = between(before, Reading(at=10.0, busy=112.0, stolen=1.0, lab=60.0, pressure=11.0))
    assert calm.other_cpu_cores == pytest.approx(0.2)
    assert not calm.disturbed
    assert between(before, Reading(at=10.0, busy=120.0, stolen=1.0, lab=60.0, pressure=11.0)).disturbed
    assert between(before, Reading(at=10.0, busy=112.0, stolen=3.0, lab=60.0, pressure=11.0)).disturbed


def test_a_family_needs_bounds_that_make_sense():
    with pytest.raises(ValueError, match="most_mib_per_second"):
        Family(name="a", most_mib_per_second=0)
