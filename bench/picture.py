"""The picture: throughput as bars, one group a scenario. Small enough to need no library."""

from html import escape
from statistics import median

WIDTH, LEFT, RIGHT = 860, 230, 90
BAR, GAP, HEAD = 18, 6, 44
STYLE = """
svg { background: #fff; font: 13px system-ui, sans-serif; }
text { fill: #24292f; } .title { font-weight: 600; }
.ours { fill: #0969da; } .peer { fill: #9aa4af; } .floor { fill: #d8dee4; }
@media (prefers-color-scheme: dark) {
  svg { background: #0d1117; } text { fill: #e6edf3; }
  .ours { fill: #4493f8; } .peer { fill: #6e7681; } .floor { fill: #30363d; }
}
"""


def svg(figures):
    body, top = [], 0
    for scenario in figures.scenarios:
        bars, top = group(figures, scenario, top)
        body += bars
    size = f'viewBox="0 0 {WIDTH} {top + GAP}" width="{WIDTH}" height="{top + GAP}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img">'
    title = "<title>Deletes per second, longer is better</title>"
    return "\n".join([head, title, f"<style>{STYLE}</style>", *body, "</svg>", ""])


def group(figures, scenario, top):
    """The bars of one scenario, and where the next begins."""
    rates = [
        (each, median(figures.values(scenario.name, each.name, "rate")))
        for each in figures.contestants(scenario.name)
    ]
    scale = (WIDTH - LEFT - RIGHT) / max(rate for _, rate in rates)
    lines, top = [text(GAP, top + HEAD - 14, scenario.title, "title")], top + HEAD
    for contestant, rate in rates:
        lines += bar(contestant, rate, rate * scale, top)
        top += BAR + GAP
    return lines, top


def bar(contestant, rate, length, top):
    y = top + BAR - 5
    kind = "floor" if contestant.floor else "ours" if "puffle" in contestant.title else "peer"
    yield text(LEFT - 8, y, contestant.title, anchor="end")
    yield f'<rect class="{kind}" x="{LEFT}" y="{top}" width="{length:.1f}" height="{BAR}" rx="2"/>'
    yield text(LEFT + length + 6, y, f"{rate:,.0f}/s")


def text(x, y, words, kind="", anchor="start"):
    place = f'x="{x:.1f}" y="{y}" text-anchor="{anchor}"'
    return f'<text class="{kind}" {place}>{escape(words)}</text>'
