"""The picture of a backtest: what was asked of every host over time, a map for each run, as one SVG file by itself."""

from collections.abc import Sequence
from html import escape

import numpy as np
from numpy.typing import NDArray

from rebalancerd.cluster.names import printable
from rebalancerd.sim.replay import ReplayResult

LEFT, RIGHT, TOP, GAP = 92, 24, 66, 58
WIDTH = 900
ROW_MOST, ROW_LEAST, MAP_HEIGHT = 18.0, 2.0, 420.0
LABELS_MOST = 24
BUCKET = 0.05
CALM = ((247, 251, 255), (107, 174, 214), (8, 69, 148))  # light to dark blue: the share of the CPU that is asked for
HOT = ((253, 174, 107), (230, 85, 13), (127, 0, 0))  # orange to dark red: from the hot level to twice the host
HOT_TOP = 1.5
FONT = "font-family='system-ui, sans-serif'"


def picture(results: Sequence[ReplayResult], hosts: Sequence[str], *, seconds: float, hot: float) -> str:
    """An SVG with a map for each run: a row for each host, time from left to right, red above ``hot``."""
    row = max(ROW_LEAST, min(ROW_MOST, MAP_HEIGHT / max(1, len(hosts))))
    height = row * len(hosts)
    total = TOP + len(results) * (height + GAP)
    size = f"width='{LEFT + WIDTH + RIGHT}' height='{total:.0f}'"
    box = f"viewBox='0 0 {LEFT + WIDTH + RIGHT} {total:.0f}'"
    parts = [
        f"<svg xmlns='http://www.w3.org/2000/svg' {box} {size} {FONT} font-size='12' fill='#222'>",
        f"<rect {size} fill='#fff'/>",
        *_legend(hot),
    ]
    for number, result in enumerate(results):
        top = TOP + number * (height + GAP)
        parts += _map(result, hosts, top=top, row=row, seconds=seconds, hot=hot)
    return "\n".join((*parts, "</svg>", ""))


def _map(
    result: ReplayResult, hosts: Sequence[str], *, top: float, row: float, seconds: float, hot: float
) -> list[str]:
    heat = result.readings.heat
    height = row * len(hosts)
    told = f"{result.readings.hot_host_minutes:,.0f} hot host minutes, {result.readings.unmet_core_hours:,.2f} core-hours unmet"
    moves = f", {result.migrations} migrations" if result.cycles else ""
    title = f"<tspan font-weight='600'>{_text(result.name)}</tspan><tspan dx='10' fill='#555'>{told}{moves}</tspan>"
    parts = [f"<text x='{LEFT}' y='{top - 8:.1f}'>{title}</text>"]
    every = max(1, int(np.ceil(len(hosts) / LABELS_MOST)))
    for i, name in enumerate(hosts):
        if i % every == 0 and row * every >= 9:
            size = min(11.0, row * every - 1)
            short = name if len(name) <= 14 else name[:13] + "…"
            parts.append(
                f"<text x='{LEFT - 6}' y='{top + row * i + min(row, 12) * 0.8:.1f}' text-anchor='end' "
                f"font-size='{size:.0f}' fill='#555'>{_text(short)}</text>"
            )
        parts += _row(heat[i], top + row * i, row, hot)
    parts.append(f"<rect x='{LEFT}' y='{top:.1f}' width='{WIDTH}' height='{height:.1f}' fill='none' stroke='#bbb'/>")
    return parts + _axis(top + height, seconds)


def _row(shares: NDArray[np.float64], top: float, row: float, hot: float) -> list[str]:
    """Neighbours of one colour are one rectangle."""
    colours = [colour(float(share), hot) for share in shares]
    width = WIDTH / len(colours)
    parts, begun = [], 0
    for i in range(1, len(colours) + 1):
        if i == len(colours) or colours[i] != colours[begun]:
            x, wide = LEFT + begun * width, (i - begun) * width
            # a hair wider and higher, so that no white line shows between two
            parts.append(
                f"<rect x='{x:.1f}' y='{top:.1f}' width='{wide + 0.3:.1f}' height='{row + 0.3:.1f}' fill='{colours[begun]}'/>"
            )
            begun = i
    return parts


def colour(share: float, hot: float) -> str:
    """Colour of a share of a host's CPU, in steps of a twentieth; the step that is hot is never one that is calm."""
    if share > hot:
        part = (np.floor((share - hot) / BUCKET) * BUCKET) / max(HOT_TOP - hot, BUCKET)
        return _between(HOT, float(min(1.0, part)))
    return _between(CALM, float(min(1.0, np.floor(share / BUCKET + 1e-9) * BUCKET / hot)))


def _between(stops: tuple[tuple[int, int, int], ...], part: float) -> str:
    place = part * (len(stops) - 1)
    low = min(int(place), len(stops) - 2)
    mixed = (round(a + (b - a) * (place - low)) for a, b in zip(stops[low], stops[low + 1], strict=True))
    return "#" + "".join(f"{c:02x}" for c in mixed)


def _axis(bottom: float, seconds: float) -> list[str]:
    hours = seconds / 3600
    steps = (1 / 12, 1 / 6, 0.25, 0.5, 1, 2, 3, 6, 12, 24, 48, 168)
    step = next((s for s in steps if hours / s <= 8), steps[-1])
    parts = []
    for i in range(int(hours / step + 1e-9) + 1):
        x = LEFT + WIDTH * i * step / hours
        at = f"{i * step:g} h" if step >= 1 else f"{i * step * 60:.0f} min"
        parts.append(
            f"<line x1='{x:.1f}' x2='{x:.1f}' y1='{bottom:.1f}' y2='{bottom + 4:.1f}' stroke='#888'/>"
            f"<text x='{x:.1f}' y='{bottom + 17:.1f}' text-anchor='middle' font-size='11' fill='#555'>{at}</text>"
        )
    return parts


def _legend(hot: float) -> list[str]:
    """A strip of colours with the shares they stand for."""
    parts = [
        f"<text x='{LEFT}' y='22' font-size='14' font-weight='600'>CPU asked of each host, share of what it has</text>"
    ]
    width, left = 12.0, LEFT + WIDTH - 30 * 12.0
    for i in range(30):
        share = i * BUCKET + BUCKET / 2
        x = left + i * width
        parts.append(f"<rect x='{x:.1f}' y='10' width='{width + 0.3:.1f}' height='12' fill='{colour(share, hot)}'/>")
    for share in (0.0, 0.5, hot, HOT_TOP):
        x = left + share / BUCKET * width
        word = f"{share:.0%}" + (" hot" if share == hot else "")
        parts.append(f"<text x='{x:.1f}' y='36' text-anchor='middle' font-size='11' fill='#555'>{word}</text>")
    return parts


def _text(name: str) -> str:
    return escape(printable(name), quote=True)
