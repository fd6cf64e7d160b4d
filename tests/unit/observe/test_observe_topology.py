"""Topology and huge pages of a host, out of its capabilities XML and what libvirt says of free pages."""

from rebalancerd.cluster.host import HugePages
from rebalancerd.observe.capabilities_xml import parse_capabilities
from rebalancerd.observe.topology_xml import with_free

MIB2, GIB1 = 2**21, 2**30


def cell(number: int, cpus: tuple[int, ...], memory: int = 4000, small: int = 1000, large: str = "8") -> str:
    listed = "".join(f"<cpu id='{c}' socket_id='{number}' core_id='{c}' siblings='{c}'/>" for c in cpus)
    return (
        f"<cell id='{number}'><memory unit='KiB'>{memory}</memory><pages unit='KiB' size='4'>{small}</pages>"
        f"<pages unit='KiB' size='2048'>{large}</pages><pages unit='KiB' size='1048576'>0</pages>"
        f"<cpus num='{len(cpus)}'>{listed}</cpus></cell>"
    )


def capabilities(*cells: str) -> str:
    topology = f"<topology><cells num='{len(cells)}'>{''.join(cells)}</cells></topology>" if cells else ""
    return f"<capabilities><host><uuid>u</uuid>{topology}</host></capabilities>"


def test_pools_are_summed_over_the_cells_without_the_base_page_and_empty_ones() -> None:
    found = parse_capabilities(capabilities(cell(0, (0, 1)), cell(1, (2, 3), large="24")))

    assert found.hugepages == (HugePages(size_bytes=MIB2, total=32),)
    assert found.cells == 2


def test_without_cells_nothing_is_known_and_without_pools_there_are_none() -> None:
    assert parse_capabilities(capabilities()).hugepages is None
    assert parse_capabilities(capabilities()).topology is None
    assert parse_capabilities(capabilities(cell(0, (0,), large="0"))).hugepages == ()


def test_a_count_that_is_none_is_no_pool() -> None:
    assert parse_capabilities(capabilities(cell(0, (0,), large="many"))).hugepages == ()


def test_equal_machines_have_equal_topologies_whatever_memory_their_firmware_keeps() -> None:
    first = parse_capabilities(capabilities(cell(0, (0, 1)), cell(1, (2, 3))))
    same = parse_capabilities(capabilities(cell(1, (2, 3), memory=3990), cell(0, (0, 1), small=990, large="7")))
    other = parse_capabilities(capabilities(cell(0, (0, 2)), cell(1, (1, 3))))

    assert first.topology is not None
    assert first.topology == same.topology != other.topology


def test_free_pages_are_summed_over_the_cells_and_unknown_where_not_told() -> None:
    pools = (HugePages(size_bytes=MIB2, total=32), HugePages(size_bytes=GIB1, total=4))

    assert with_free(pools, {0: {2048: 3}, 1: {2048: 4}}) == (
        HugePages(size_bytes=MIB2, total=32, free=7),
        HugePages(size_bytes=GIB1, total=4),
    )
    assert with_free(pools, None) == pools
