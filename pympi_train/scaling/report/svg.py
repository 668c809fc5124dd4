"""Charts as SVG text that takes its colours from the page: lines and stacked bars.

matplotlib is not used, as its pictures have fixed colours, which a dark page or a
printer cannot change; the charts of the report need no more than this.
"""

import html
import math

WIDTH, HEIGHT = 460, 300
LEFT, RIGHT, TOP, BOTTOM = 58, 140, 16, 46
ROOM = WIDTH - LEFT - RIGHT  # of the x axis
N_TICKS = 5
LINE = 13  # height of a line of text
NAME_AT, MAX_NAME = 22, 112  # where the name of a line begins, and its width
MAX_LETTERS = 17  # longer names may be wider than that, so they are narrowed
DASHES = ("", "7 3", "2 3", "8 3 2 3", "1 2", "12 4")
PATTERNS = 6  # of the stacked bars: classes part-0 ...


class Chart:
    """A chart with labelled axes.

    Parameters
    ----------
    title, x_label, y_label : str
        Labels name the unit.
    xs : list of float
        Places on the x axis that have a tick; on a logarithmic axis.
    y_most : float
        Upper end of the y axis, which begins at 0.
    names : list of str, optional
        Of the ticks; by default the numbers.
    """

    def __init__(self, title, x_label, y_label, xs, y_most, names=None):
        self._title, self._labels = title, (x_label, y_label)
        self._xs, self._names = list(xs), names or [f"{x:,g}" for x in xs]
        self._step = nice_step(y_most)
        self._y_most = self._step * max(1, math.ceil(y_most / self._step - 1e-9))
        self._parts, self._ends = [], []

    def x(self, value):
        """Return the place of a value on the x axis."""
        low, high = math.log(self._xs[0]), math.log(self._xs[-1])
        u = 0.5 if high == low else (math.log(value) - low) / (high - low)
        return LEFT + 14 + u * (ROOM - 28)

    def y(self, value):
        """Return the place of a value on the y axis."""
        room = HEIGHT - TOP - BOTTOM
        return TOP + room * (1 - min(max(value / self._y_most, 0.0), 1.0))

    def line(self, name, xs, ys, number, hollow=()):
        """Add a line with its name at its end; ``hollow`` marks points by index."""
        points = [(self.x(x), self.y(y)) for x, y in zip(xs, ys)]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        dash = DASHES[number % len(DASHES)]
        kind = f"series-{number % PATTERNS}"
        style = f'class="line {kind}" stroke-dasharray="{dash}"'
        self._parts.append(f'<polyline {style} points="{path}"/>')
        for i, (x, y) in enumerate(points):
            how = "hollow" if i in hollow else "full"
            self._parts.append(
                f'<circle class="{how} {kind}" cx="{x:.1f}" cy="{y:.1f}" r="3.5"/>'
            )
        self._ends.append((points[-1][1], name, style))

    def dotted(self, name, xs, ys):
        """Add a dotted line without points, with which others are compared."""
        points = [(self.x(x), self.y(y)) for x, y in zip(xs, ys)]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        self._parts.append(f'<polyline class="ideal" points="{path}"/>')
        self._ends.append((points[-1][1], name, 'class="ideal"'))

    def interval(self, x, low, high, number):
        """Add the interval of a point."""
        at, kind = self.x(x), f"series-{number % PATTERNS}"
        self._parts.append(
            f'<path class="line {kind}" d="M{at:.1f} {self.y(low):.1f}V'
            f'{self.y(high):.1f}M{at - 4:.1f} {self.y(low):.1f}h8M{at - 4:.1f} '
            f'{self.y(high):.1f}h8"/>'
        )

    def bar(self, index, parts, width):
        """Add a stacked bar in the middle of slot ``index``; parts from below."""
        at, below = self.slot(index), 0.0
        for number, value in enumerate(parts):
            top, bottom = self.y(below + value), self.y(below)
            below += value
            self._parts.append(
                f'<rect class="part-{number % PATTERNS}" x="{at - width / 2:.1f}" '
                f'y="{top:.1f}" width="{width:.1f}" height="{bottom - top:.1f}"/>'
            )

    def slot(self, index):
        """Return the middle of one of evenly spaced slots, for bars."""
        return LEFT + ROOM * (index + 0.5) / len(self._xs)

    def text(self, legend=(), slots=False):
        """Return the SVG; ``legend`` names the parts of bars from below."""
        title, (x_label, y_label) = html.escape(self._title), self._labels
        middle, bottom = (LEFT + WIDTH - RIGHT) / 2, HEIGHT - BOTTOM
        return "\n".join([
            f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{title}">',
            f"<title>{title}</title>",
            *self._grid(bottom, slots),
            *self._parts,
            *self._end_names(),
            *_legend(legend),
            f'<text class="label" x="{middle:.0f}" y="{HEIGHT - 8}" '
            f'text-anchor="middle">{html.escape(x_label)}</text>',
            f'<text class="label" transform="translate(13 {(TOP + bottom) / 2:.0f}) '
            f'rotate(-90)" text-anchor="middle">{html.escape(y_label)}</text>',
            "</svg>",
        ])

    def _grid(self, bottom, slots):
        for i in range(round(self._y_most / self._step) + 1):
            value = i * self._step
            y = self.y(value)
            yield f'<path class="grid" d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}"/>'
            yield (
                f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{value:g}'
                "</text>"
            )
        for i, (x, name) in enumerate(zip(self._xs, self._names)):
            at = self.slot(i) if slots else self.x(x)
            yield (
                f'<text x="{at:.1f}" y="{bottom + 16}" text-anchor="middle">'
                f"{html.escape(name)}</text>"
            )

    def _end_names(self):
        """Names of lines at their ends, moved apart, each with a piece of its line."""
        ends, places, last = sorted(self._ends), [], -math.inf
        height = min(LINE, (HEIGHT - BOTTOM - TOP) / max(1, len(ends)))
        for y, *_ in ends:
            last = max(y + 4, last + height)
            places.append(last)
        last = HEIGHT - BOTTOM + 4 + height
        for i in reversed(range(len(places))):  # up from the lower edge
            last = places[i] = min(places[i], last - height)
        left = WIDTH - RIGHT + 4
        for y, (_, name, style) in zip(places, ends):
            yield f'<path {style} d="M{left} {y - 4:.1f}h18"/>'
            how = f'x="{left + NAME_AT}" y="{y:.1f}"'
            if len(name) > MAX_LETTERS:
                how += f' textLength="{MAX_NAME}" lengthAdjust="spacingAndGlyphs"'
            yield f"<text {how}>{html.escape(name)}</text>"


def _legend(names):
    for i, name in enumerate(names):
        y = HEIGHT - BOTTOM - 14 - 18 * i
        x = WIDTH - RIGHT + 8
        at = f'x="{x}" y="{y}" width="12" height="12"'
        yield f'<rect class="part-{i % PATTERNS}" {at}/>'
        yield f'<text x="{x + 18}" y="{y + 10}">{html.escape(name)}</text>'


def nice_step(most):
    """Return the distance of ticks on an axis from 0 to about ``most``.

    >>> [nice_step(x) for x in (1, 7, 0.03, 1234)]
    [0.2, 2.0, 0.01, 500.0]
    """
    if not most > 0 or not math.isfinite(most):
        return 1.0
    rough = most / N_TICKS
    unit = 10.0 ** math.floor(math.log10(rough))
    step = next(k * unit for k in (1, 2, 5, 10) if k * unit >= rough * (1 - 1e-9))
    return float(f"{step:.6g}")
