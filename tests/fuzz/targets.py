"""What reads something from outside: each as a function of bytes that may raise nothing.

A target hands the bytes to the reader and takes the reader's own error for a good answer. Where a file carries a digest
of itself, the bytes are also read behind it: a fuzzer guesses no SHA-256.
"""

import hashlib
import io
import json
import math
import os
import tempfile
import tomllib
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any

from rebalancerd import config
from rebalancerd.config import ConfigError
from rebalancerd.observe.agent_client import parse_figures
from rebalancerd.observe.agent_curves import parse_curves
from rebalancerd.observe.capabilities_xml import parse_capabilities
from rebalancerd.observe.domain_stats import completion_of, dirty_status, domain_sample, progress_of, running_job
from rebalancerd.observe.domain_xml import parse_domain
from rebalancerd.observe.libvirt_probe import cpu_question
from rebalancerd.observe.safe_xml import DomainXmlError
from rebalancerd.predict import artefact, artefact_audit
from rebalancerd.predict.cost_kind import COST
from rebalancerd.predict.manifest import ArtefactError
from rebalancerd.predict.settings import PredictSettings
from rebalancerd.record import planfile, snapshotfile
from rebalancerd.record.codec import PLANS, CodecError
from rebalancerd.record.planfile import PlanFileError
from rebalancerd.record.snapshotfile import SnapshotFileError
from rebalancerd.sim import scenario
from rebalancerd.sim.scenario import ScenarioError

ROOT = Path(__file__).parents[2]
KEPT = Path(__file__).parent / "kept"


@dataclass(frozen=True)
class Target:
    """A reader. ``seeds``: good inputs to begin from; ``words``: what its language is made of."""

    read: Callable[[bytes], None]
    seeds: Callable[[], list[bytes]]
    words: tuple[bytes, ...] = ()
    examples: int = 200


def of_configuration(data: bytes) -> None:
    """A configuration file: refused with reasons, or shown in a form that reads back as the same."""
    text = data.decode("utf-8", "replace")
    try:
        cfg = config.parse(text)
    except ConfigError as error:
        assert error.problems
        assert all(line.isprintable() for line in str(error).splitlines())
        return
    assert config.parse(config.effective(cfg)) == cfg


def of_plan(data: bytes) -> None:
    """A plan file, and a plan behind the digest."""
    for read in (_plan_document, PLANS.read):
        try:
            read(data.decode("utf-8", "replace"))
        except (PlanFileError, CodecError):
            pass


def of_snapshot(data: bytes) -> None:
    """A snapshot file, and the inputs behind the digest."""
    for read in (_snapshot_document, snapshotfile.INPUTS.read):
        try:
            read(data.decode("utf-8", "replace"))
        except (SnapshotFileError, CodecError):
            pass


def _plan_document(text: str) -> None:
    tree = _tree(text)
    if isinstance(tree, dict):
        planfile.parse_document(tree)


def _snapshot_document(text: str) -> None:
    tree = _tree(text)
    if isinstance(tree, dict):
        snapshotfile.parse_document(tree)


def _tree(text: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def of_xml(data: bytes) -> None:
    """XML of a domain, of capabilities, and of a CPU that is to be compared."""
    text = data.decode("utf-8", "replace")
    readers: tuple[Callable[[str], object], ...] = (
        lambda xml: parse_domain(xml, persistent=True, autostart=None, has_managed_save=None),
        parse_capabilities,
        cpu_question,
    )
    for read in readers:
        try:
            read(text)
        except DomainXmlError as error:
            assert str(error).isprintable()


def of_statistics(data: bytes) -> None:
    """What libvirt answers in typed parameters: lines ``key=TYPEvalue``."""
    stats = dict(_parameters(data))
    sample = domain_sample("u", "n", stats, None, fault=None)
    for answer in (sample, dirty_status(stats), running_job(stats), progress_of(stats), completion_of(stats)):
        _assert_finite(answer)


def _parameters(data: bytes) -> Iterator[tuple[str, object]]:
    for line in data.decode("utf-8", "replace").split("\n"):
        key, _, value = line.partition("=")
        kind, rest = value[:1], value[1:]
        try:
            yield key, {"i": int, "f": float, "b": lambda t: t == "1"}.get(kind, str)(rest)
        except ValueError:
            yield key, rest


def _assert_finite(answer: object) -> None:
    """No figure is NaN, infinite or negative."""
    if is_dataclass(answer):
        for field in fields(answer):
            _assert_finite(getattr(answer, field.name))
    elif isinstance(answer, float):
        assert math.isfinite(answer)
        assert answer >= 0


def of_agent(data: bytes) -> None:
    """An agent's figures and its dirty curves."""
    for read in (lambda: parse_figures(data.decode("utf-8", "replace")), lambda: parse_curves(data)):
        try:
            read()
        except ValueError:
            pass


def of_model(data: bytes) -> None:
    """A model's two files. The first byte says which: a manifest, a skops file, or the schema inside of one."""
    which, rest = data[:1], data[1:]
    manifest, raw = _shipped()
    if which == b"m":
        text = rest
    else:
        raw = rest if which == b"r" else _with_schema(raw, rest)
        known = json.loads(manifest)
        known |= {"bytes": len(raw), "sha256": hashlib.sha256(raw).hexdigest()}
        text = json.dumps(known).encode()
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None) as made:
        path = Path(made) / "cost-fuzz.json"
        path.write_bytes(text)
        path.with_suffix(".skops").write_bytes(raw)
        try:
            artefact.load(path, settings=PredictSettings(), kind=COST)
        except ArtefactError as error:
            assert str(error)


@cache
def _shipped() -> tuple[bytes, bytes]:
    path = next((ROOT / "models").glob("cost-*.json"))
    return path.read_bytes(), path.with_suffix(".skops").read_bytes()


def _with_schema(raw: bytes, schema: bytes) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(raw)) as old, zipfile.ZipFile(made, "w") as new:
        for info in old.infolist():
            new.writestr(info.filename, schema if info.filename == artefact_audit.SCHEMA else old.read(info))
    return made.getvalue()


def _schema(raw: bytes) -> bytes:
    with zipfile.ZipFile(io.BytesIO(raw)) as archive:
        return archive.read(artefact_audit.SCHEMA)


def of_scenario(data: bytes) -> None:
    """A scenario's cluster.toml and, behind a NUL, its cmdlist."""
    table, _, script = data.decode("utf-8", "replace").partition("\0")
    try:
        scenario.parse_script(script)
    except ScenarioError:
        pass
    try:
        tree: Mapping[str, Any] = tomllib.loads(table)
    except (ValueError, RecursionError):
        return
    try:
        scenario.parse_world(tree)
    except ScenarioError:
        pass


def _scenarios() -> list[bytes]:
    found = sorted((ROOT / "tests" / "scenarios").glob("*/cluster.toml"))[::8]
    return [
        p.read_bytes() + b"\0" + p.with_name("cmdlist").read_bytes() for p in found if p.with_name("cmdlist").exists()
    ]


DOMAIN = """<domain type='kvm' id='3'><name>web</name><uuid>6695eb01-f6a4-8304-79aa-97f2502e193f</uuid>
<metadata><policy xmlns='urn:rebalancerd:policy:1' mode='guarded' priority='5' max-downtime='0.3' post-copy='no'>
<avoid host='h3'/><affinity group='g'/></policy></metadata><memory unit='KiB'>1048576</memory>
<currentMemory unit='KiB'>1048576</currentMemory><memoryBacking><hugepages><page size='2048' unit='KiB'/></hugepages>
</memoryBacking><vcpu placement='static' cpuset='0-3,^2' current='2'>4</vcpu><cputune><vcpupin vcpu='0' cpuset='1'/></cputune>
<os><type arch='x86_64' machine='pc-q35-7.2'>hvm</type></os><cpu mode='custom' match='exact'><model>Haswell</model>
<feature policy='require' name='vmx'/><numa><cell id='0' cpus='0-3' memory='1048576' unit='KiB'/></numa></cpu><devices>
<disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='/srv/nfs/web.qcow2'/><target dev='vda'/></disk>
<disk type='network' device='disk'><auth username='u'><secret type='ceph' uuid='6695eb01-f6a4-8304-79aa-97f2502e1940'/></auth>
<source protocol='rbd' name='p/i'/></disk><interface type='network'><source network='default'/></interface>
<interface type='bridge'><source bridge='br0'/></interface><hostdev mode='subsystem' type='pci' managed='yes'/></devices></domain>"""
CAPABILITIES = """<capabilities><host><uuid>6695eb01-f6a4-8304-79aa-97f2502e193f</uuid><cpu><arch>x86_64</arch><model>Haswell</model>
<pages unit='KiB' size='4'/><pages unit='KiB' size='2048'/></cpu><topology><cells num='1'><cell id='0'><memory unit='KiB'>4194304</memory>
<pages unit='KiB' size='2048'>8</pages><cpus num='2'><cpu id='0' socket_id='0' core_id='0' siblings='0-1'/></cpus></cell></cells></topology>
</host><guest><os_type>hvm</os_type><arch name='x86_64'><machine maxCpus='255'>pc-q35-7.2</machine></arch></guest></capabilities>"""
STATISTICS = """state.state=i1\nstate.reason=i1\ncpu.time=i123456789\nvcpu.current=i2\nvcpu.maximum=i4\nvcpu.0.delay=i5\nvcpu.1.delay=i6
balloon.current=i1048576\nballoon.rss=i500000\nnet.count=i1\nnet.0.rx.bytes=i7\nnet.0.tx.bytes=i8\nblock.count=i1\nblock.0.rd.bytes=i9
block.0.wr.bytes=i10\ndirtyrate.calc_status=i2\ndirtyrate.calc_start_time=i1\ndirtyrate.calc_period=i1
dirtyrate.megabytes_per_second=i3\ntype=i5\noperation=i5\ntime_elapsed=i1000\nmemory_total=i1000000\nmemory_processed=i10
memory_remaining=i999990\nmemory_dirty_rate=i4\nmemory_page_size=i4096\ndowntime=i30\nauto_converge_throttle=i20\nsuccess=b1"""
FIGURES = """# HELP rebalancerd_agent_cpus Logical CPUs.\n# TYPE rebalancerd_agent_cpus gauge\nrebalancerd_agent_cpus 2.0
rebalancerd_agent_pressure_share{resource="cpu"} 0.1\nrebalancerd_agent_network_bytes_total{interface="eth0"} 12.0\n"""
CURVES = json.dumps({"format": 1, "vms": [{"uuid": "6695eb01-f6a4-8304-79aa-97f2502e193f", "age_seconds": 1.0,
                     "memory_bytes": 1 << 30, "points": [{"seconds": 1.0, "bytes": 4096.0, "samples": 5}]}]})  # fmt: skip


def _plans() -> list[bytes]:
    from tests.unit.record.record_values import make_plan

    plan = make_plan()
    return [json.dumps(planfile.document(plan)).encode(), PLANS.write(plan).encode()]


def _snapshots() -> list[bytes]:
    from tests.unit.record.test_snapshotfile import make_kept

    kept = make_kept()
    return [json.dumps(snapshotfile.document(kept)).encode(), snapshotfile.INPUTS.write(kept).encode()]


def _models() -> list[bytes]:
    manifest, raw = _shipped()
    return [b"m" + manifest, b"s" + _schema(raw), b"rPK\x03\x04"]


TOML = (
    b"[[",
    b"]]",
    b"=",
    b'"""',
    b"true",
    b"1e999",
    b"nan",
    b"-1",
    b'"1 d"',
    b"{}",
    b"[]",
    b"1979-05-27",
    b"[[hosts]]\n",
)
JSON = (b"null", b"true", b"-1", b"1e999", b"NaN", b"[]", b"{}", b'""', b"\\ud800", b"[" * 2000)
XML = (
    b"<a>",
    b"</a>",
    b"&lt;",
    b"<!DOCTYPE a [",
    b"<![CDATA[",
    b"'-1'",
    b"'99999999999999999999'",
    b"unit='EiB'",
    b"\xef\xbf\xbf",
)
TARGETS: dict[str, Target] = {
    "configuration": Target(of_configuration, lambda: [config.generate().encode(), _small_configuration()], TOML),
    "plan": Target(of_plan, _plans, JSON),
    "snapshot": Target(of_snapshot, _snapshots, JSON, 100),
    "xml": Target(of_xml, lambda: [DOMAIN.encode(), CAPABILITIES.encode()], XML),
    "statistics": Target(of_statistics, lambda: [STATISTICS.encode()], (b"=i", b"=fnan", b"=finf", b"=i-1", b"=i1" + b"0" * 400, b"=s")),
    "agent": Target(of_agent, lambda: [FIGURES.encode(), CURVES.encode()], (*JSON, b"NaN", b"+Inf", b'{a="', b"# TYPE")),
    "model": Target(of_model, _models, JSON, 60),
    "scenario": Target(of_scenario, _scenarios, (*TOML, b"\0", b"00:10", b"count = 9999999999")),
}  # fmt: skip


def _small_configuration() -> bytes:
    """Every setting with its default as if it had been set."""
    lines = config.generate().splitlines()
    return "\n".join(line.removeprefix("#") for line in lines if not line.startswith("# ")).encode()
