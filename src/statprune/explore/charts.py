"""Small charts as SVG, drawn anew at every move of a slider: text and colours are the page's."""

from collections.abc import Sequence
from html import escape
from math import ceil, floor, log10

from statprune.budget.frontier import Point

WIDTH, HEIGHT = 300.0, 190.0
LEFT, RIGHT, TOP, BOTTOM = 44.0, 18.0, 12.0, 40.0
BARS_HEIGHT = 130.0
MOST_LABELS = 12


def damage_chart(curve: Sequence[Point], chosen: Point, of: str) -> str:
    """Predicted damage against the share kept, with the point chosen; damage on a logarithmic scale.

    Args:
        curve: (share, least damage), by ascending share.
        chosen: the same of the plan.
        of: what the share is of, in words.
    """
    seen = [(share, damage) for share, damage in [*curve, chosen] if damage > 0]
    if not seen:
        return _figure("Nothing is predicted to be lost.", "", "")
    low, high = floor(log10(min(y for _, y in seen))), ceil(log10(max(y for _, y in seen)))
    low, high = max(low, high - 7), max(high, low + 1)
    from_share = min(x for x, _ in [*curve, chosen])
    span = max(1.0 - from_share, 1e-9)

    def place(point: Point) -> tuple[float, float]:
        share, damage = point
        height = (log10(max(damage, 10.0**low)) - low) / (high - low)
        x = LEFT + (share - from_share) / span * (WIDTH - LEFT - RIGHT)
        return x, TOP + (1 - min(max(height, 0.0), 1.0)) * (HEIGHT - TOP - BOTTOM)

    parts = []
    for power in range(low, high + 1):
        _, y = place((1.0, 10.0**power))
        parts.append(_line(LEFT, y, WIDTH - RIGHT, y, "grid"))
        parts.append(_text(LEFT - 5, y + 3.5, f"{10.0**power:g}", "end"))
    for share in _shares(from_share):
        x, _ = place((share, 1.0))
        parts.append(_line(x, HEIGHT - BOTTOM, x, HEIGHT - BOTTOM + 4, "axis"))
        parts.append(_text(x, HEIGHT - BOTTOM + 16, f"{share:.0%}", "middle"))
    parts.append(_line(LEFT, HEIGHT - BOTTOM, WIDTH - RIGHT, HEIGHT - BOTTOM, "axis"))
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in map(place, curve))
    parts.append(f'<polyline class="line" points="{path}"/>')
    x, y = place(chosen)
    parts.append(_line(x, y, x, HEIGHT - BOTTOM, "chosen"))
    parts.append(f'<circle class="point" cx="{x:.1f}" cy="{y:.1f}" r="5"/>')
    parts.append(_text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 6, f"share kept of {of}", "middle"))
    label = f"predicted damage (logarithmic) against the share kept of {of}; chosen: {_told(chosen)}"
    return _figure(f"Predicted damage by budget; chosen: {_told(chosen)}", label, "".join(parts))


def widths_chart(part: str, widths: Sequence[tuple[int, int]], unit: str) -> str:
    """Units kept in every block, as bars beside the dense width.

    Args:
        part: attention, feed_forward and the like.
        widths: (kept, units) of blocks 0, 1, ...
        unit: what a unit is called, in the plural.
    """
    most = max(units for _, units in widths)
    step = (WIDTH - LEFT - RIGHT) / len(widths)
    base, tall = BARS_HEIGHT - BOTTOM, BARS_HEIGHT - BOTTOM - TOP
    parts = []
    for level in (0, most) if most < 2 else (0, most / 2, most):
        y = base - level / most * tall
        parts.append(_line(LEFT, y, WIDTH - RIGHT, y, "grid"))
        parts.append(_text(LEFT - 5, y + 3.5, f"{level:g}", "end"))
    every = ceil(len(widths) / MOST_LABELS)
    for block, (kept, units) in enumerate(widths):
        x, wide = LEFT + (block + 0.12) * step, 0.76 * step
        whole, height = units / most * tall, kept / most * tall
        parts.append(f"<g><title>block {block}: {kept} of {units} {escape(unit)}</title>")
        parts.append(_bar(x, base - whole, wide, whole, "dense"))
        parts.append(_bar(x, base - height, wide, height, "kept") + "</g>")
        if block % every == 0:
            parts.append(_text(x + wide / 2, base + 15, str(block), "middle"))
    parts.append(_text((LEFT + WIDTH - RIGHT) / 2, BARS_HEIGHT - 8, "block", "middle"))
    kept, units = sum(kept for kept, _ in widths), sum(units for _, units in widths)
    title = f"{part.replace('_', ' ').capitalize()}: {unit} kept in each block"
    told = f"{title}, {kept} of {units} in all: {', '.join(str(each) for each, _ in widths)}"
    return _figure(title, told, "".join(parts), height=BARS_HEIGHT)


def _told(point: Point) -> str:
    return f"{point[0]:.1%} kept, damage {point[1]:.4g}"


def _shares(least: float) -> list[float]:
    step = 0.2 if least < 0.5 else 0.1 if least < 0.8 else 0.05
    first = ceil(least / step - 1e-9)
    return [number * step for number in range(first, round(1 / step) + 1)]


def _line(x: float, y: float, to_x: float, to_y: float, kind: str) -> str:
    return f'<line class="{kind}" x1="{x:.1f}" y1="{y:.1f}" x2="{to_x:.1f}" y2="{to_y:.1f}"/>'


def _bar(x: float, y: float, wide: float, tall: float, kind: str) -> str:
    return f'<rect class="{kind}" x="{x:.2f}" y="{y:.2f}" width="{wide:.2f}" height="{tall:.2f}"/>'


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _figure(title: str, label: str, inside: str, height: float = HEIGHT) -> str:
    drawn = (
        f'<svg viewBox="0 0 {WIDTH:g} {height:g}" role="img" aria-label="{escape(label)}">{inside}</svg>'
        if inside
        else ""
    )
    return f'<figure class="chart"><figcaption>{escape(title)}</figcaption>{drawn}</figure>'
