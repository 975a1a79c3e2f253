"""What was said, by whom and in which order: as aligned text and as a sequence diagram."""

import json
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from html import escape

SERVER = "server"


class Kind(StrEnum):
    """What can happen on a connection, as its client sees it.

    `closed` means by a close frame of the server, `lost` without one.
    """

    JOINED = "joined"
    REFUSED = "refused"
    SENT = "sent"
    RECEIVED = "received"
    CLOSED = "closed"
    LOST = "lost"
    NOTE = "note"


FIRST, LAST = 4, 16  # events that are shown of a long conversation
# Half of a pair of surrogates, and what else XML 1.0 has no place for.
_ILLEGAL = re.compile("[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")

ARROWS = {Kind.SENT: "→", Kind.RECEIVED: "←"}


@dataclass(frozen=True)
class Event:
    """One thing that happened: `at` in seconds since the timeline began.

    `headers` came along with an opening handshake. They are for who looks for a mistake:
    in a picture a token would take all the room.
    """

    at: float
    who: str
    kind: Kind
    text: str
    headers: str = ""

    @property
    def arrow(self) -> str:
        """How a line of text shows the direction."""
        return ARROWS.get(self.kind, "·")


def shown(message: str | bytes, limit: int = 60) -> str:
    """A message as one line of text, cut to `limit` characters, with its size if cut."""
    if isinstance(message, bytes):
        whole = f"{len(message)} bytes {message[:16].hex(' ')}".rstrip()
        return whole + (" …" if len(message) > 16 else "")
    # JSON is quoted as it is: with its own quotes escaped, nobody could read it.
    is_json = message.startswith(("{", "["))
    limit, cut = (2 * limit, "…") if is_json else (limit, '…"')
    # Quoted, no character takes less room than before: what follows would not be seen.
    head = message[: limit + 1]
    quoted = printable(head if is_json else json.dumps(head, ensure_ascii=False))
    if len(quoted) <= limit:
        return quoted
    size = len(message.encode(errors="replace"))
    unit = f"{size} bytes" if size < 1024 else f"{size / 1024:.0f} KiB"
    return f"{quoted[: limit - 20]}{cut} ({unit})"


def printable(text: str) -> str:
    """The text with escapes for what would end the line, turn it round or colour it."""
    if text.isprintable():
        return text
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode() for c in text
    )


def xml(text: str) -> str:
    """The text as the content of an XML element."""
    return escape(_ILLEGAL.sub("\ufffd", text))


class Drawing(str):
    """An SVG, which a notebook shows as a picture."""

    def _repr_svg_(self) -> str:
        return str(self)

    def __repr__(self) -> str:
        return "<a drawing>"


@dataclass(repr=False)
class Timeline:
    """The events of one conversation, over any number of connections.

    In a notebook it shows itself as a sequence diagram; `print` gives the text.
    """

    events: list[Event] = field(default_factory=list)
    started: float = field(default_factory=time.monotonic)

    def record(self, who: str, kind: Kind, text: str, headers: str = "") -> Event:
        """Add what just happened."""
        event = Event(time.monotonic() - self.started, who, kind, text, headers)
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

    def __repr__(self) -> str:
        # What a notebook stores beside the diagram: the words, without the times.
        return self.text(times=False)

    def text(
        self, *, here: Event | None = None, times: bool = True, headers: bool = False
    ) -> str:
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
            line += f" ({event.headers})" if headers and event.headers else ""
            lines.append(f"{line:<56} ← here" if event is here else line)
        return "\n".join(lines)

    def svg(self, *, here: Event | None = None, times: bool = False) -> Drawing:
        """A sequence diagram: a lane for each participant, an arrow for each message.

        The same events give the same bytes, as long as `times` are left out.
        """
        kept = [event for event in self.around(here) if event]
        return Drawing(_Diagram(kept, here, times).svg())

    def _repr_svg_(self) -> str:
        return self.svg()


# The diagram brings its own background: a notebook's theme and the reader's system may
# disagree about dark and light, and text must be readable in each combination. The light
# colours are attributes, because some viewers strip a style sheet; it adds the dark ones.
_STYLE = """
@media (prefers-color-scheme: dark) {
.seq .ground { fill: #16181d; } .seq text { fill: #e8e8e8; } .seq .lane { stroke: #777; }
.seq .head { fill: #223047; stroke: #7ab4ff; }
.seq .good { fill: #7ab4ff; stroke: #7ab4ff; }
.seq .bad { fill: #ff7b72; stroke: #ff7b72; } .seq .bad text { fill: #ff7b72; }
}
"""
_LINE = {"good": ("#1f5fa8", "1.5"), "bad": ("#c01c28", "2.5")}  # colour, width


class _Diagram:
    ROW, TOP, SIDE, LETTER = 34, 70, 70, 7.2  # in pixels
    NARROW, WIDE = 200, 420  # in pixels: how far two lanes may be apart

    def __init__(self, events: list[Event], here: Event | None, times: bool) -> None:
        self.events, self.here, self.times = events, here, times
        names = dict.fromkeys(event.who for event in events if event.who != SERVER)
        self.lanes = [*names, SERVER]
        longest = max((len(self.words(event)) for event in events), default=0)
        wanted = int(longest * self.LETTER) + 40
        self.between = min(max(wanted, self.NARROW), self.WIDE)
        self.width = self.between * (len(self.lanes) - 1) + 2 * self.SIDE
        self.height = self.TOP + self.ROW * max(1, len(events)) + 10

    def x(self, who: str) -> int:
        return self.SIDE + self.between * self.lanes.index(who)

    def words(self, event: Event) -> str:
        return f"{event.at:.3f} s  {event.text}" if self.times else event.text

    def svg(self) -> str:
        parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" class="seq" role="img"'
            f' width="{self.width}" height="{self.height}"'
            f' viewBox="0 0 {self.width} {self.height}"'
            ' font-family="system-ui, sans-serif" font-size="13">',
            f"<title>{xml(self.summary())}</title>",
            f"<style>{_STYLE}</style>",
            '<rect class="ground" width="100%" height="100%" fill="#fff"/>',
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
            f'<line class="lane" x1="{x}" y1="46" x2="{x}" y2="{self.height - 6}"'
            ' stroke="#999" stroke-dasharray="3 4"/>'
            f'<rect class="head" x="{x - 50}" y="14" width="100" height="28" rx="5"'
            ' fill="#eef3f9" stroke="#1f5fa8"/>'
            f'<text x="{x}" y="33" text-anchor="middle" fill="#1a1a1a">{xml(who)}</text>'
        )

    def row(self, number: int, event: Event) -> str:
        y = self.TOP + self.ROW * number + 14
        marked = "bad" if event is self.here else "good"
        colour, width = _LINE[marked]
        here, server = self.x(event.who), self.x(SERVER)
        middle = here + self.between // 2
        match event.kind:
            case Kind.SENT:
                drawn = self.wire(here, server, y) + self.tip(server, here, y)
            case Kind.RECEIVED | Kind.CLOSED:
                drawn = self.wire(server, here, y) + self.tip(here, server, y)
            case Kind.JOINED:
                tips = self.tip(server, here, y) + self.tip(here, server, y)
                drawn = self.wire(here, server, y) + tips
            case _:
                drawn, middle = "", 0
        if event.kind in (Kind.CLOSED, Kind.LOST):
            drawn += f'<path d="M{here - 6} {y - 6}l12 12m0 -12l-12 12" fill="none"/>'
        elif not middle:
            drawn = f'<circle cx="{here}" cy="{y}" r="4"/>'
        label = (
            self.label(event, middle, y - 6, marked)
            if middle
            else self.label(event, here + 12, y + 4, marked, anchor="start")
        )
        return (
            f'<g class="{marked}" fill="{colour}" stroke="{colour}"'
            f' stroke-width="{width}">{drawn}{label}</g>'
        )

    def wire(self, start: int, end: int, y: int) -> str:
        return f'<line x1="{start}" y1="{y}" x2="{end}" y2="{y}"/>'

    def tip(self, at: int, away: int, y: int) -> str:
        back = at - 9 if at > away else at + 9
        return f'<polygon points="{at},{y} {back},{y - 4} {back},{y + 4}" stroke="none"/>'

    def label(
        self, event: Event, x: int, y: int, marked: str, anchor: str = "middle"
    ) -> str:
        text, room = self.words(event), int((self.between - 24) / self.LETTER)
        short = text if len(text) <= room else text[: room - 1] + "…"
        look = 'fill="#c01c28" font-weight="bold"' if marked == "bad" else 'fill="#1a1a1a"'
        return (
            f'<text x="{x}" y="{y}" text-anchor="{anchor}" stroke="none" {look}>'
            f"{xml(short)}</text>"
        )
