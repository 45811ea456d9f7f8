"""What reports have in common: strings from the wire, times, choosing traces."""

from __future__ import annotations

import re
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracer.errors import UsageError
from tracer.reports import (
    call_words,
    chosen,
    duration,
    file_names,
    losses,
    nanoseconds,
    plain,
    selection,
    timestamp,
)


@pytest.mark.parametrize(
    "text, shown",
    [
        ("web-1", "web-1"),
        ("a\nb\tc\r", "a\\nb\\tc\\r"),
        ("\x1b[2J", "\\e[2J"),
        ("\x9b31m\x07", "\\x9b31m\\x07"),
        ("a\u202eb\u2066", "a\\u202eb\\u2066"),
        ("\ud800", "\\ud800"),
        ("[red]x[/red]", "[red]x[/red]"),
        ("Zürich 云主机", "Zürich 云主机"),
        ("e" + "\u0301" * 50, "e\u0301\u0301"),
        ("A" * 10_000, "A" * 119 + "…"),
    ],
)
def test_hostile_text_is_shown_escaped_on_one_line(text: str, shown: str) -> None:
    """Escapes, bidi controls, line feeds and stacked accents are seen and have no effect."""
    assert plain(text) == shown


@given(st.text(st.characters(exclude_categories=())), st.integers(2, 200))
def test_no_text_gets_out_of_its_place(text: str, limit: int) -> None:
    """Whatever the text: one line, within the limit, printable, and UTF-8 can hold it."""
    shown = plain(text, limit)
    assert len(shown) <= limit
    assert not re.search(r"[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\u2028\u2029]", shown)
    shown.encode()


def test_plain_is_plain_already() -> None:
    """Escaping twice changes nothing that is short enough."""
    assert plain(plain("a\x1b[31m\n\u202e")) == plain("a\x1b[31m\n\u202e")


@pytest.mark.parametrize(
    "time_ns, text",
    [
        (1_767_250_412_739_000_000, "2026-01-01T06:53:32.739000Z"),
        (1_767_250_412_739_123_999, "2026-01-01T06:53:32.739123Z"),
        (0, "1970-01-01T00:00:00.000000Z"),
        (None, None),
        (2**63 * 1_000_000, None),
    ],
)
def test_times_are_rfc_3339_with_six_digits(time_ns: int | None, text: str | None) -> None:
    """A time that no calendar has, from a damaged capture, is null and no crash."""
    assert timestamp(time_ns) == text


@pytest.mark.parametrize(
    "text, time_ns",
    [
        ("2026-11-22 07:03:15.786 UTC", 1795330995_786_000_000),
        ("2026-01-01T06:53:32.739Z", 1_767_250_412_739_000_000),
        ("2026-01-01T06:53:32.739", 1_767_250_412_739_000_000),
        ("2026-01-01 07:53:32+01:00", 1_767_250_412_000_000_000),
        ("1767250412.123456789", 1_767_250_412_123_456_789),
        ("1767250412", 1_767_250_412_000_000_000),
    ],
)
def test_times_are_read_exactly(text: str, time_ns: int) -> None:
    """RFC 3339 with and without a zone, and epoch seconds to the nanosecond."""
    assert nanoseconds(text) == time_ns


@pytest.mark.parametrize("text", ["yesterday", "", "06:53", "1e9", "²"])
def test_what_is_no_time_is_refused(text: str) -> None:
    """Nobody guesses what day was meant."""
    with pytest.raises(ValueError):
        nanoseconds(text)


@pytest.mark.parametrize(
    "ms, text",
    [(0.04, "0.0 ms"), (9.94, "9.9 ms"), (16.4, "16 ms"), (999, "999 ms"), (999.6, "1.0 s"), (3140, "3.1 s"),
     (99_970, "1 m 40 s"), (125_000, "2 m 05 s"), (12_000_000, "3 h 20 m")],
)  # fmt: skip
def test_spans_are_said_as_people_say_them(ms: float, text: str) -> None:
    """Three digits at most, in the unit that fits."""
    assert duration(round(ms * 1e6)) == text


def test_a_call_is_cut_where_it_tells_least(build: SimpleNamespace) -> None:
    """First the end of the operation goes, then of the roles, then the caller; the result stays."""
    call = build.record(1, 0, "Internal_base REST nova-compute > neutron-server PUT /v2.0/ports/{id} 503")
    assert call_words(call, 80) == "nova-compute > neutron-server PUT /v2.0/ports/{id} 503"
    for limit in range(20, 60):
        assert len(call_words(call, limit)) <= limit
        assert call_words(call, limit).endswith(" 503")
    assert call_words(call, 43) == "compute > neutron PUT /v2.0/ports/{id} 503"
    long = build.record(
        1, 0, "Internal_base RPC nova-conductor > nova-scheduler call select_destinations undelivered"
    )
    assert call_words(long, 55) == "conductor > scheduler call select_destinat… undelivered"


def test_captures_are_named_as_short_as_tells_them_apart() -> None:
    """Int and Ext; the whole file name where two begin alike; the folder, else a number, where two are
    called alike."""
    planes = ["x/Internal_base.pcap.zst", "x/External_api.pcap"]
    assert list(file_names(planes, short=True).values()) == ["Int", "Ext"]
    assert list(file_names(planes).values()) == ["Internal_base", "External_api"]
    assert list(file_names(["a/x.pcap", "b/x.pcap"]).values()) == ["a/x", "b/x"]
    two = ["in/mon/Internal_base.pcap", "in/tue/Internal_base.pcap"]
    assert list(file_names(two, short=True).values()) == ["mon/Int", "tue/Int"]
    deep = ["mon/x/ctl-any.pcap", "tue/x/ctl-any.pcap"]
    assert list(file_names(deep, short=True).values()) == ["mon/x/ctl", "tue/x/ctl"]
    long = ["incident-2026-11-22-am/Internal_base.pcap", "incident-2026-11-22-pm/Internal_base.pcap"]
    assert list(file_names(long, short=True).values()) == ["Int1", "Int2"]


def test_losses_are_told_in_words_and_only_where_there_are_some(build: SimpleNamespace) -> None:
    """A capture without damage says nothing."""
    assert losses(build.captures()[0]) == ""
    told = losses(build.damaged())
    assert "3 gaps (48,211 bytes lost); 12 packets cut by the snap length" in told
    assert "3 streams not decoded (2 tls, 1 http2)" in told
    assert "1 segment out of order; breaks off" in told


@pytest.mark.parametrize(
    "conditions, names",
    [
        ([], ["web-1", "web-1", "vrm-down", "fail-cdown"]),
        (["name=web-*"], ["web-1", "web-1"]),
        (["verdict=deviates", "name=web-*"], ["web-1"]),
        (["outcome=stuck", "outcome=active"], ["web-1", "fail-cdown"]),
        (["step=8"], ["web-1", "vrm-down", "fail-cdown"]),
        (["step=8c"], ["vrm-down"]),
        (["id=98a7861f"], ["fail-cdown"]),
        (["host=compute2"], ["vrm-down", "fail-cdown"]),
    ],
)
def test_where_chooses(conditions: list[str], names: list[str], build: SimpleNamespace) -> None:
    """Values of one key are alternatives, several keys must all hold; step=8 means all its parts."""
    fits = selection(conditions)
    every = [build.conforming(), build.stopped_at_8b(), build.rescheduled(), build.stuck()]
    assert [verdict.name for verdict in every if fits(verdict)] == names


@pytest.mark.parametrize(
    "condition, words",
    [("nam=x", "Did you mean name?"), ("name", "KEY=VALUE"), ("outcome=stuk", "Did you mean stuck?")],
)
def test_a_selection_that_means_nothing_is_an_error(condition: str, words: str) -> None:
    """A typo must not select nothing silently: the run would exit with 5."""
    with pytest.raises(UsageError, match=re.escape(words)):
        selection([condition])


def test_a_trace_is_chosen_by_any_of_its_names(build: SimpleNamespace) -> None:
    """Id, request id, server id, name, or the beginning of one, with or without req-."""
    every = [build.conforming(1), build.rescheduled(), build.stuck()]
    for wanted in (
        "vrm-down",
        "req-2f3ede67-dfd3-4dad-b7aa-44c3ba175b86",
        "req-2f3e",
        "2f3e",
        "8450a932",
        "vrm",
    ):
        assert [verdict.name for verdict in chosen(every, wanted)] == ["vrm-down"]


def test_all_vms_of_one_request_are_chosen_together(build: SimpleNamespace) -> None:
    """The beginning of a request id is unambiguous when one request has it, however many VMs it made."""
    from dataclasses import replace

    twins = [replace(build.conforming(1), id=f"req-1/{n}", server_id=f"{n}-x", name=f"vm-{n}") for n in "ab"]
    assert len(chosen([*twins, build.stuck()], "req-0000")) == 2
    assert len(chosen([*twins, build.stuck()], "a-x")) == 1


@pytest.mark.parametrize("wanted, words", [("vrm-dwon", "near it: vrm-down"), ("zzz", "known: web-1"),
                                           ("req-", "fits 3 traces"), (None, "--trace ID")])  # fmt: skip
def test_an_unknown_trace_names_those_that_there_are(
    wanted: str | None, words: str, build: SimpleNamespace
) -> None:
    """The error helps: what is near, or what there is."""
    with pytest.raises(UsageError, match=re.escape(words)):
        chosen([build.conforming(1), build.rescheduled(), build.stuck()], wanted)


def test_the_only_trace_needs_no_name(build: SimpleNamespace) -> None:
    """`tracer show boot.pcap` shows the one that is in there."""
    assert len(chosen([build.conforming()], None)) == 1
