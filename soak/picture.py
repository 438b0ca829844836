"""The picture: answers, orphans and faults along one line of time."""

from collections import Counter

from bench.picture import text

WIDTH, LEFT, RIGHT, GAP = 960, 90, 20, 6
ANSWERS, ORPHANS, LANE = 120, 80, 16
STYLE = """
svg { background: #fff; font: 12px system-ui, sans-serif; }
text { fill: #24292f; } .fine { fill: #2da44e; } .away { fill: #d4a72c; } .none { fill: #cf222e; }
.other { fill: #9aa4af; } .orphans { fill: none; stroke: #8250df; stroke-width: 1.5; }
.fault { fill: #57606a; }
@media (prefers-color-scheme: dark) {
  svg { background: #0d1117; } text { fill: #e6edf3; } .fault { fill: #8b949e; }
}
"""
KINDS = {200: "fine", 503: "away", 500: "none", 0: "none"}
ORDER = ("fine", "other", "away", "none")


def svg(book, began, ended):
    """Return the picture of a run."""
    lanes = sorted({each.lane for each in book.troubles})
    height = ANSWERS + ORPHANS + LANE * len(lanes) + 5 * GAP

    def x(moment):
        return LEFT + (moment - began) / (ended - began) * (WIDTH - LEFT - RIGHT)

    body = [text(LEFT - 8, ANSWERS / 2, "answers", anchor="end"), *answers(book, began, x)]
    body += [text(LEFT - 8, ANSWERS + ORPHANS / 2, "orphans", anchor="end"), orphans(book, x)]
    for number, lane in enumerate(lanes):
        top = ANSWERS + ORPHANS + 3 * GAP + number * LANE
        body += [text(LEFT - 8, top + LANE - GAP, lane, anchor="end"), *faults(book, lane, top, x)]
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img">'
    title = "<title>Answers each second, orphans, and faults</title>"
    return "\n".join([head, title, f"<style>{STYLE}</style>", *body, "</svg>", ""])


def answers(book, began, x):
    """A column for each second: successes below, what failed above."""
    counted = Counter((int(a.ended - began), KINDS.get(a.status, "other")) for a in book.answers)
    seconds = Counter()
    for (second, _), count in counted.items():
        seconds[second] += count
    scale, wide = ANSWERS / max(seconds.values(), default=1), x(began + 1) - x(began)
    for second in sorted(seconds):
        y = ANSWERS
        for kind in ORDER:
            high = counted[second, kind] * scale
            y -= high
            if high:
                place = f'x="{x(began + second):.1f}" y="{y:.1f}"'
                yield f'<rect class="{kind}" {place} width="{wide:.1f}" height="{high:.1f}"/>'


def orphans(book, x):
    most = max((count for _, count, _ in book.samples), default=0) or 1
    base = ANSWERS + ORPHANS + GAP
    points = " ".join(f"{x(t):.1f},{base - n / most * ORPHANS:.1f}" for t, n, _ in book.samples)
    return f'<polyline class="orphans" points="{points}"/>'


def faults(book, lane, top, x):
    for each in book.troubles:
        if each.lane == lane:
            wide = max(x(each.ended) - x(each.began), 1.5)
            place = f'x="{x(each.began):.1f}" y="{top}" width="{wide:.1f}" height="{LANE - GAP}"'
            yield f'<rect class="fault" {place}><title>{each.name}</title></rect>'
