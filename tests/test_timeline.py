"""A timeline shows what was said, whatever was said, as text and as a diagram."""

from itertools import pairwise
from xml.etree import ElementTree

import pytest

from exercises.grader.results import Result, Status
from exercises.grader.timeline import Event, Kind, Timeline, shown

SVG = "{http://www.w3.org/2000/svg}"

# What JSON, terminals and XML each find difficult.
NASTY = [
    "\x00\x01\x1f",
    "\x1b[31mred",
    "\x9b31mred",
    "\x7f",
    "a\nb\r\nc",
    "a\u2028b\u2029c\x85d\x0be",
    "\ud800",
    "\ufffe\uffff",
    "\u202egnihtemos",
    "<b>&amp;</b>",
    "]]>",
    '"\\"',
    "žluťoučký kůň 🐎",
]


def conversation():
    """A timeline that is the same each time."""
    return Timeline(
        [
            Event(0.0, "ana", Kind.JOINED, "joined ws"),
            Event(0.5, "ben", Kind.REFUSED, "refused with HTTP 403"),
            Event(1.0, "ana", Kind.SENT, '"hello"'),
            Event(1.25, "ana", Kind.RECEIVED, '"Echo: hello"'),
            Event(12.5, "zoe jr", Kind.NOTE, "stopped reading"),
            Event(13.0, "ana", Kind.CLOSED, "closed 1000"),
        ],
        started=0.0,
    )


def parsed(timeline, **options):
    return ElementTree.fromstring(timeline.svg(**options).encode())


# As text


def test_the_text_is_aligned_with_a_line_for_each_event():
    assert str(conversation()).splitlines() == [
        " 0.000 ana    · joined ws",
        " 0.500 ben    · refused with HTTP 403",
        ' 1.000 ana    → "hello"',
        ' 1.250 ana    ← "Echo: hello"',
        "12.500 zoe jr · stopped reading",
        "13.000 ana    · closed 1000",
    ]


def test_times_can_be_left_out():
    text = conversation().text(times=False)

    assert text.splitlines()[2] == 'ana    → "hello"'


def test_the_event_where_it_went_wrong_is_marked_alone():
    timeline = conversation()

    lines = timeline.text(here=timeline.events[3]).splitlines()

    marked = ' 1.250 ana    ← "Echo: hello"'.ljust(56) + " ← here"
    assert lines[3] == marked
    assert [line for line in lines if "here" in line] == [marked]


def test_an_empty_timeline_is_an_empty_text_and_a_diagram():
    assert str(Timeline()) == ""
    assert parsed(Timeline()).tag == SVG + "svg"


def test_recorded_events_come_in_order():
    timeline = Timeline()

    first = timeline.record("ana", Kind.SENT, "one")
    second = timeline.record("ben", Kind.RECEIVED, "two")

    assert list(timeline) == [first, second]
    assert 0 <= first.at <= second.at
    assert (first.who, first.kind, first.text) == ("ana", "sent", "one")


def test_a_long_conversation_is_cut_but_not_where_it_went_wrong():
    timeline = Timeline()
    events = [timeline.record("ana", Kind.SENT, f"{n}") for n in range(100)]

    lines = timeline.text(here=events[50], times=False).splitlines()

    assert lines[0] == "ana → 0"
    assert len(lines) < 30
    assert len([line for line in lines if line.strip() == "…"]) == 2
    assert [line for line in lines if "← here" in line] == [
        "ana → 50".ljust(56) + " ← here"
    ]
    assert parsed(timeline, here=events[50]).find(f".//{SVG}g[@class='bad']") is not None


# Messages


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ("hello", '"hello"'),
        ("", '""'),
        ("žluťoučký 🐎", '"žluťoučký 🐎"'),
        ("two\nlines", r'"two\nlines"'),
        ("x" * 58, f'"{"x" * 58}"'),
        ("x" * 59, f'"{"x" * 39}…" (59 bytes)'),
        ("ž" * 100, f'"{"ž" * 39}…" (200 bytes)'),
        ("x" * 2048, f'"{"x" * 39}…" (2 KiB)'),
        ("x" * 16 * 2**20, f'"{"x" * 39}…" (16384 KiB)'),
        (b"", "0 bytes"),
        (b"\x00\xff", "2 bytes 00 ff"),
        (bytes(16), "16 bytes " + " ".join(["00"] * 16)),
        (bytes(17), "17 bytes " + " ".join(["00"] * 16) + " …"),
    ],
)
def test_a_message_is_shown_short_with_its_size(message, text):
    assert shown(message) == text


@pytest.mark.parametrize("message", NASTY, ids=ascii)
def test_a_message_is_shown_in_one_line_that_can_be_printed(message):
    text = shown(message)

    assert len(text.splitlines()) == 1
    assert text.isprintable()
    assert text.encode()


def test_different_messages_look_different():
    texts = [shown(message) for message in sorted(NASTY)]

    assert all(one != other for one, other in pairwise(texts))


def test_a_result_keeps_a_line_for_each_event_whatever_was_said():
    timeline = Timeline()
    for message in NASTY:
        timeline.record("ana", Kind.SENT, shown(message))

    result = Result("x", 1, "x", "x", 1, Status.FAILED, timeline=str(timeline))

    assert len(result.text().splitlines()) == 1 + len(NASTY)


# As a diagram


def test_the_same_events_give_the_same_diagram():
    one, other = conversation(), conversation()
    other.events[0] = Event(99.0, "ana", Kind.JOINED, "joined ws")

    assert one.svg() == one.svg() == one._repr_svg_() == other.svg()
    assert one.svg(times=True) != other.svg(times=True)


def test_the_diagram_has_a_lane_for_each_and_a_row_for_each_event():
    svg = parsed(conversation())

    classes = [element.get("class") for element in svg.iter()]
    texts = [element.text for element in svg.iter(SVG + "text")]
    assert classes.count("lane") == 4
    assert classes.count("good") == 6
    assert texts[:4] == ["ana", "ben", "zoe jr", "server"]
    assert texts[4:7] == ["joined ws", "refused with HTTP 403", '"hello"']


def test_an_arrow_points_to_who_hears_it():
    timeline = Timeline()
    timeline.record("ana", Kind.SENT, "hello")
    timeline.record("ana", Kind.RECEIVED, "hello")

    svg = parsed(timeline)

    lanes = {element.text: element.get("x") for element in svg.iter(SVG + "text")}
    tips = [p.get("points").split(",")[0] for p in svg.iter(SVG + "polygon")]
    assert tips == [lanes["server"], lanes["ana"]]


def test_the_event_where_it_went_wrong_stands_out_in_the_diagram():
    timeline = conversation()

    svg = parsed(timeline, here=timeline.events[3])

    bad = [group for group in svg.iter(SVG + "g") if group.get("class") == "bad"]
    assert [group.find(SVG + "text").text for group in bad] == ['"Echo: hello"']


def test_the_diagram_says_in_words_what_it_shows():
    svg = parsed(conversation())

    assert svg.get("role") == "img"
    title = svg.find(SVG + "title").text
    assert title.startswith("Sequence diagram of ana, ben, zoe jr, server: ")
    assert 'ana received "Echo: hello"' in title


def test_the_diagram_can_be_read_in_the_dark_and_in_the_light():
    svg = parsed(conversation())

    assert all(text.get("fill") for text in svg.iter(SVG + "text"))
    assert svg.find(f".//{SVG}rect[@class='ground']").get("fill")
    _, dark = svg.find(SVG + "style").text.split("@media (prefers-color-scheme: dark)")
    assert ".seq .ground { fill: #" in dark
    assert ".seq text { fill: #" in dark


@pytest.mark.parametrize("message", NASTY, ids=ascii)
def test_the_diagram_is_xml_whatever_was_said_and_by_whom(message):
    timeline = Timeline()
    for kind in Kind:
        timeline.record("ana", kind, message)
        timeline.record(f"n{message}", kind, shown(message))

    svg = parsed(timeline, here=timeline.events[1], times=True)

    assert len(list(svg.iter(SVG + "g"))) == 2 * len(Kind)


def test_a_long_message_does_not_leave_its_place_in_the_diagram():
    timeline = Timeline()
    timeline.record("ana", Kind.SENT, "x" * 1000)

    labels = [element.text for element in parsed(timeline).iter(SVG + "text")]

    assert labels[-1].endswith("…")
    assert len(labels[-1]) < 80
