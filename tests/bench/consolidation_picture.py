"""The frontier of consolidation as one SVG: energy against real shortage, one point for each policy and level."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

LEVELS = (1, 2, 3, 4, 5)
WIDTH, HEIGHT = 860, 500
LEFT, RIGHT, TOP, BOTTOM = 70, 150, 66, 56
OURS_COLOUR, OTHERS_COLOUR = "#08519c", "#a63603"
GRID_KWH, GRID_MOST = (1, 2, 5, 10, 20, 50, 100), 8
LABEL_PIXELS = 14
LEAST_SHORTAGE = 1e-5  # what is below stands at the left edge
FONT = "font-family='system-ui, sans-serif'"


@dataclass(frozen=True, slots=True)
class Point:
    """One run. ``shortage``: a share."""

    name: str
    energy_kwh: float
    shortage: float
    migrations: int
    ours: bool


def frontier(points: Sequence[Point], title: str) -> str:
    """An SVG of the points; left and down is better. DVFS, which folds nothing, is told in words: it would hide the rest."""
    shown = [p for p in points if p.name != "dvfs"]
    if not shown:
        raise ValueError("no point to draw")
    shares = np.log10([max(p.shortage, LEAST_SHORTAGE) for p in shown])
    low, high = float(np.floor(shares.min())), float(np.ceil(shares.max() + 1e-9))
    energies = [p.energy_kwh for p in shown]
    step = next((s for s in GRID_KWH if (max(energies) - min(energies)) / s <= GRID_MOST), GRID_KWH[-1])
    top_kwh, base_kwh = (float(np.ceil(max(energies) / step)) * step, float(np.floor(min(energies) / step) - 1) * step)

    def x(share: float) -> float:
        part = (np.log10(max(share, LEAST_SHORTAGE)) - low) / max(1.0, high - low)
        return float(LEFT + part * (WIDTH - LEFT - RIGHT))

    def y(kwh: float) -> float:
        return HEIGHT - BOTTOM - (kwh - base_kwh) / (top_kwh - base_kwh) * (HEIGHT - TOP - BOTTOM)

    parts = [
        (
            f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {WIDTH} {HEIGHT}' width='{WIDTH}' height='{HEIGHT}' "
            f"{FONT} font-size='12' fill='#222'>"
        ),
        f"<rect width='{WIDTH}' height='{HEIGHT}' fill='#fff'/>",
        (
            f"<text x='{LEFT}' y='24' font-size='14' font-weight='600'>Energy against demand that was not served, "
            f"{escape(title)}</text>"
        ),
        f"<text x='{LEFT}' y='42' fill='#555'>{escape(_under(points))}</text>",
    ]
    for decade in range(int(low), int(high) + 1):
        at = x(10.0**decade)
        parts += [
            f"<line x1='{at:.1f}' x2='{at:.1f}' y1='{TOP}' y2='{HEIGHT - BOTTOM}' stroke='#e5e5e5'/>",
            f"<text x='{at:.1f}' y='{HEIGHT - BOTTOM + 18}' text-anchor='middle' fill='#555'>{10.0**decade:.4%}</text>",
        ]
    for kwh in np.arange(base_kwh, top_kwh + step / 2, step):
        parts += [
            f"<line x1='{LEFT}' x2='{WIDTH - RIGHT}' y1='{y(kwh):.1f}' y2='{y(kwh):.1f}' stroke='#e5e5e5'/>",
            f"<text x='{LEFT - 8}' y='{y(kwh) + 4:.1f}' text-anchor='end' fill='#555'>{kwh:g}</text>",
        ]
    parts += [
        (
            f"<text x='{(LEFT + WIDTH - RIGHT) / 2}' y='{HEIGHT - 16}' text-anchor='middle' fill='#555'>"
            "unserved ÷ requested MIPS-seconds (logarithmic)</text>"
        ),
        f"<text x='20' y='{TOP - 8}' fill='#555'>kWh of the day</text>",
    ]
    ours = sorted((p for p in shown if p.ours), key=lambda p: p.shortage)
    line = " ".join(f"{x(p.shortage):.1f},{y(p.energy_kwh):.1f}" for p in ours)
    parts.append(f"<polyline points='{line}' fill='none' stroke='{OURS_COLOUR}' stroke-width='1.5'/>")
    label = -np.inf
    for p in sorted(shown, key=lambda p: -p.energy_kwh):
        colour = OURS_COLOUR if p.ours else OTHERS_COLOUR
        at, up = x(p.shortage), y(p.energy_kwh)
        label = max(label + LABEL_PIXELS, up + 4)  # names of neighbours stand below each other
        parts += [
            f"<circle cx='{at:.1f}' cy='{up:.1f}' r='4.5' fill='{colour}'/>",
            f"<text x='{at + 9:.1f}' y='{label:.1f}' fill='{colour}'>{escape(p.name)}, {p.migrations} moves</text>",
        ]
    return "\n".join((*parts, "</svg>", ""))


def _under(points: Sequence[Point]) -> str:
    dvfs = next((p for p in points if p.name == "dvfs"), None)
    folded = "blue: rebalancerd at five levels, brown: CloudSim's policies"
    return folded if dvfs is None else f"{folded}; without moves (dvfs) {dvfs.energy_kwh:.0f} kWh and no shortage"
