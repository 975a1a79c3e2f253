"""What was said, by whom and in which order: as aligned text and as a sequence diagram."""

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from html import escape

SERVER = "server"


class Kind(StrEnum):
    """What can happen on a connection, as its client sees it."""

    JOINED = "joined"
    REFUSED = "refused"
    SENT = "sent"
    RECEIVED = "received"
    CLOSED = "closed"
    NOTE = "note"


FIRST, LAST = 4, 16  # events that are shown of a long conversation
ARROWS = {Kind.SENT: "→", Kind.RECEIVED: "←"}


@dataclass(frozen=True)
class Event:
    """One thing that happened: `at` in seconds since the timeline began."""

    at: float
    who: str
    kind: Kind
    text: str

    @property
    def arrow(self) -> str:
        """How a line of text shows the direction."""
        return ARROWS.get(self.kind, "·")


def shown(message: str | bytes, limit: int = 60) -> str:
    """A message as one line of text, cut to `limit` characters, with its size if cut."""
    if isinstance(message, bytes):
        whole = f"{len(message)} bytes {message[:16].hex(' ')}"
        return whole + (" …" if len(message) > 16 else "")
    quoted = json.dumps(message, ensure_ascii=False)
    if len(quoted) <= limit:
        return quoted
    size = len(message.encode(errors="replace"))
    unit = f"{size} bytes" if size < 1024 else f"{size / 1024:.0f} KiB"
    return f'{quoted[: limit - 20]}…" ({unit})'


@dataclass
class Timeline:
    """The events of one conversation, over any number of connections.

    In a notebook it shows itself as a sequence diagram; `print` gives the text.
    """

    events: list[Event] = field(default_factory=list)
    started: float = field(default_factory=time.monotonic)

    def record(self, who: str, kind: Kind, text: str) -> Event:
        """Add what just happened."""
        event = Event(time.monotonic() - self.started, who, kind, text)
        self.events.append(event)
        return event

    def __iter__(self) -> Iterator[Event]:
        return iter(self.events)

    def __str__(self) -> str:
        return self.text()

    def around(self, here: Event | None) -> list[Event | None]:
        """The beginning, and what came shortly before and after `here`; None is a gap."""
        if len(self.events) <= FIRST + LAST:
            return list(self.events)
        place = self.events.index(here) if here in self.events else len(self.events) - 1
        start = max(FIRST, min(place - LAST + 4, len(self.events) - LAST))
        end = start + LAST
        gaps = [[None] if start > FIRST else [], [None] if end < len(self.events) else []]
        return [*self.events[:FIRST], *gaps[0], *self.events[start:end], *gaps[1]]

    def text(self, *, here: Event | None = None, times: bool = True) -> str:
        """Aligned lines, one an event; `here` marks the one where it went wrong.

        Of a long conversation only the beginning and the place around `here` are shown.
        """
        shown_events = self.around(here)
        names = max((len(event.who) for event in shown_events if event), default=0)
        lines = []
        for event in shown_events:
            if event is None:
                lines.append("       …")
                continue
            clock = f"{event.at:6.3f} " if times else ""
            line = f"{clock}{event.who:<{names}} {event.arrow} {event.text}"
            lines.append(f"{line:<56} ← here" if event is here else line)
        return "\n".join(lines)

    def svg(self, *, here: Event | None = None, times: bool = False) -> str:
        """A sequence diagram: a lane for each participant, an arrow for each message.

        The same events give the same bytes, as long as `times` are left out.
        """
        return _Diagram([event for event in self.around(here) if event], here, times).svg()

    def _repr_svg_(self) -> str:
        return self.svg()


# The diagram brings its own background: a notebook's theme and the reader's system may
# disagree about dark and light, and text must be readable in each combination.
_STYLE = """
.seq { background: #fff; font: 13px system-ui, sans-serif; }
.seq .ground { fill: #fff; } .seq text { fill: #1a1a1a; }
.seq .lane { stroke: #999; stroke-dasharray: 3 4; }
.seq .wire { stroke: #1f5fa8; stroke-width: 1.5; } .seq .tip { fill: #1f5fa8; }
.seq .head { fill: #eef3f9; stroke: #1f5fa8; } .seq .end { stroke: #555; }
.seq .bad .wire, .seq .bad .end { stroke: #c01c28; stroke-width: 2.5; }
.seq .bad .tip, .seq .bad text { fill: #c01c28; } .seq .bad text { font-weight: bold; }
@media (prefers-color-scheme: dark) {
.seq { background: #16181d; } .seq .ground { fill: #16181d; } .seq text { fill: #e8e8e8; }
.seq .lane { stroke: #666; } .seq .wire { stroke: #7ab4ff; } .seq .tip { fill: #7ab4ff; }
.seq .head { fill: #223047; stroke: #7ab4ff; } .seq .end { stroke: #aaa; }
.seq .bad .wire, .seq .bad .end { stroke: #ff7b72; }
.seq .bad .tip, .seq .bad text { fill: #ff7b72; }
}
"""


class _Diagram:
    LANE, ROW, TOP, SIDE, LETTER = 250, 34, 70, 70, 7.2  # in pixels

    def __init__(self, events: list[Event], here: Event | None, times: bool) -> None:
        self.events, self.here, self.times = events, here, times
        names = dict.fromkeys(event.who for event in events if event.who != SERVER)
        self.lanes = [*names, SERVER]
        self.width = self.LANE * (len(self.lanes) - 1) + 2 * self.SIDE
        self.height = self.TOP + self.ROW * max(1, len(events)) + 10

    def x(self, who: str) -> int:
        return self.SIDE + self.LANE * self.lanes.index(who)

    def svg(self) -> str:
        parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" class="seq" role="img"'
            f' width="{self.width}" height="{self.height}"'
            f' viewBox="0 0 {self.width} {self.height}">',
            f"<title>{escape(self.summary())}</title>",
            f"<style>{_STYLE}</style>",
            '<rect class="ground" width="100%" height="100%"/>',
            *map(self.lane, self.lanes),
            *(self.row(number, event) for number, event in enumerate(self.events)),
            "</svg>",
        ]
        return "\n".join(parts)

    def summary(self) -> str:
        """The diagram in words, for those who cannot see it."""
        said = "; ".join(f"{e.who} {e.kind} {e.text}" for e in self.events)
        return f"Sequence diagram of {', '.join(self.lanes)}: {said}"

    def lane(self, who: str) -> str:
        x = self.x(who)
        return (
            f'<line class="lane" x1="{x}" y1="46" x2="{x}" y2="{self.height - 6}"/>'
            f'<rect class="head" x="{x - 50}" y="14" width="100" height="28" rx="5"/>'
            f'<text x="{x}" y="33" text-anchor="middle">{escape(who)}</text>'
        )

    def row(self, number: int, event: Event) -> str:
        y = self.TOP + self.ROW * number + 14
        marked = "bad" if event is self.here else "good"
        drawn = self.arrow if event.kind in ARROWS else self.mark
        clock = f"{event.at:.3f} s  " if self.times else ""
        return f'<g class="{marked}">{drawn(event, clock, y)}</g>'

    def arrow(self, event: Event, clock: str, y: int) -> str:
        start, end = self.x(event.who), self.x(SERVER)
        if event.kind is Kind.RECEIVED:
            start, end = end, start
        tip = end - 9 if end > start else end + 9
        # The label stands beside the client's own lane: several arrows cross the others.
        middle = self.x(event.who) + self.LANE // 2
        return (
            f'<line class="wire" x1="{start}" y1="{y}" x2="{tip}" y2="{y}"/>'
            f'<polygon class="tip" points="{end},{y} {tip},{y - 4} {tip},{y + 4}"/>'
            f"{self.label(clock + event.text, middle, y - 6)}"
        )

    def mark(self, event: Event, clock: str, y: int) -> str:
        x = self.x(event.who)
        label = self.label(f"{clock}{event.text}", x + 12, y + 4, anchor="start")
        if event.kind is Kind.CLOSED:
            return f'<path class="end" d="M{x - 6} {y - 6}l12 12m0 -12l-12 12"/>{label}'
        return f'<circle class="tip" cx="{x}" cy="{y}" r="4"/>{label}'

    def label(self, text: str, x: int, y: int, anchor: str = "middle") -> str:
        room = int((self.LANE - 24) / self.LETTER)
        short = text if len(text) <= room else text[: room - 1] + "…"
        return f'<text x="{x}" y="{y}" text-anchor="{anchor}">{escape(short)}</text>'
