"""A flame graph as a tree in the terminal, with rich."""

from __future__ import annotations

from rich.text import Text
from rich.tree import Tree

from ragprof.flamegraph.layout import Layout, layout, summary_text
from ragprof.flamegraph.units import share_text, weight_text
from ragprof.profiles.model import Profile

SMALLEST = 0.02
_STYLES = {"app": "yellow", "library": "blue", "stdlib": "bright_black", "native": "magenta"}
_BAR = 10


def tree(
    profile: Profile,
    baseline: Profile | None = None,
    *,
    title: str = "",
    inverted: bool = False,
    normalized: bool = False,
    smallest: float = SMALLEST,
) -> Tree:
    """The calls with at least ``smallest`` of the whole, the largest first.

    A call that passes nearly all its time on to one callee shares a line with it: the line names
    both ends of such a chain and how many frames lie between them.
    """
    boxes = layout(profile, baseline, inverted=inverted, normalized=normalized, smallest=smallest)
    children: list[list[int]] = [[] for _ in range(len(boxes.frame))]
    for box, parent in enumerate(boxes.parent.tolist()):
        if parent >= 0:
            children[parent].append(box)
    head = Text(title or profile.name or "Flame graph", style="bold")
    head.append(f"  {summary_text(boxes)}", style="not bold")
    root = Tree(head, guide_style="bright_black")
    waiting = [(root, child) for child in _largest_first(boxes, children[0])[::-1]]
    while waiting:
        branch, box = waiting.pop()
        chain = [box]
        while _passes_on(boxes, children, chain[-1]):
            chain.append(children[chain[-1]][0])
        made = branch.add(_line(boxes, chain))
        waiting += [(made, child) for child in _largest_first(boxes, children[chain[-1]])[::-1]]
    return root


def _weight(boxes: Layout, box: int) -> float:
    before = 0.0 if boxes.before is None else float(boxes.before[box])
    return max(float(boxes.weight[box]), before)


def _largest_first(boxes: Layout, found: list[int]) -> list[int]:
    return sorted(found, key=lambda box: (-_weight(boxes, box), box))


def _passes_on(boxes: Layout, children: list[list[int]], box: int) -> bool:
    below = children[box]
    return len(below) == 1 and _weight(boxes, below[0]) >= 0.97 * _weight(boxes, box)


def _line(boxes: Layout, chain: list[int]) -> Text:
    """Share, weight, difference, what is its own, and the names at both ends of the chain."""
    first, last = chain[0], chain[-1]
    kind, total = boxes.value_type, boxes.total or 1.0
    weight = float(boxes.weight[first])
    line = Text(no_wrap=True, overflow="ellipsis")
    share = weight / total
    filled = round(min(1.0, share) * _BAR)
    line.append("█" * filled + "░" * (_BAR - filled), style="red" if share >= 0.5 else "yellow")
    line.append(f" {share_text(share):>7} {weight_text(weight, kind):>8}  ")
    if boxes.before is not None:
        change = weight - float(boxes.before[first])
        style = "red" if change > 0 else "blue"
        line.append(f"{weight_text(change, kind, sign=True):>9}  ", style=style)
    ends = [boxes.frames[boxes.frame[box]] for box in dict.fromkeys((first, last))]
    for at, frame in enumerate(ends):
        if at:
            between = len(chain) - 2
            line.append(f" … {between} … " if between else " → ", style="bright_black")
        name = frame.function.split(":")[-1] if at < len(ends) - 1 else frame.function
        line.append(name, style=_STYLES.get(frame.origin, ""))
    own = float(boxes.own[last])
    if 0.001 * total <= own < 0.999 * weight:
        line.append(f"  itself {weight_text(own, kind)}", style="bright_black")
    return line
