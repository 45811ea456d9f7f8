"""Notifications: which are sent, and that a receiver that is slow, broken or gone harms nothing."""

from __future__ import annotations

import base64
import json
import socket
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from lab.hearing import Receiver, until
from lab.streams import command, files, pipes, watch

from tracer.engine import Settings, check
from tracer.errors import UsageError
from tracer.live import notify
from tracer.live.notify import Notifier
from tracer.model import Verdict
from tracer.model.events import Event, OpenTrace
from tracer.reports.events import json_line


def verdict(name: str = "fail-no-valid-host") -> Verdict:
    return check([str(files(name)[0].parent)], Settings()).verdicts[0]


FAILED, GOOD = verdict(), verdict("ok-image")


def event(kind: str, what: Verdict, number: int = 1, message: str = "") -> Event:
    return Event(kind, what.ended_ns, OpenTrace(number, what, what.ended_ns), what, message=message)


def test_a_watch_tells_of_what_fails_and_of_nothing_else(tmp_path: Path) -> None:
    """Of two creations one is refused: one notification, which is the line that is printed too."""
    with Receiver().listening() as receiver, pipes(tmp_path, files("fail-quota-403")) as sources:
        process = command("watch", "-i", sources[0], "-i", sources[1], "--notify", receiver.url)
        output, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (1, b"")
    lines = [line for line in output.splitlines(keepends=True) if b'"event":"verdict"' in line]
    assert len(lines) == 2
    assert receiver.bodies == [line for line in lines if json.loads(line)["verdict"] == "deviates"]
    assert receiver.headers[0]["Content-Type"] == "application/json"
    assert receiver.headers[0]["path"] == "/hook"


def test_a_stall_is_notified_while_it_lasts_and_that_it_is_over(tmp_path: Path) -> None:
    told: list[Event] = []
    with Receiver().listening() as receiver:
        notifier = Notifier(receiver.url, json_line)

        def tell(event: Event) -> None:
            told.append(event)
            notifier.tell(event)

        with pipes(tmp_path, files("fail-conductor-down")) as sources:
            watch(sources, tell)
        assert notifier.close() == ""
    kinds = [json.loads(body)["event"] for body in receiver.bodies]
    assert kinds == ["stalled", "verdict"]
    assert receiver.bodies == [json_line(e) for e in told if e.kind in ("stalled", "verdict")]


CASES = [
    ([("trace_opened", FAILED)], []),
    ([("verdict", GOOD)], []),
    ([("verdict", FAILED)], ["verdict"]),
    ([("resumed", GOOD), ("verdict", GOOD)], []),
    ([("stalled", FAILED), ("resumed", GOOD), ("verdict", GOOD)], ["stalled", "resumed"]),
    ([("stalled", FAILED), ("verdict", GOOD)], ["stalled", "verdict"]),
    ([("verdict", FAILED), ("verdict", GOOD), ("verdict", GOOD)], ["verdict", "verdict"]),
    ([("stalled", FAILED), ("withdrawn", FAILED)], ["stalled", "withdrawn"]),
    ([("verdict", replace(GOOD, verdict="conforms", outcome="rejected"))], ["verdict"]),
]


@pytest.mark.parametrize(("happens", "sent"), CASES)
def test_what_is_sent(happens: list[tuple[str, Verdict]], sent: list[str]) -> None:
    with Receiver().listening() as receiver:
        notifier = Notifier(receiver.url, json_line)
        for kind, what in happens:
            notifier.tell(event(kind, what))
        assert notifier.close() == ""
    assert [json.loads(body)["event"] for body in receiver.bodies] == sent
    assert notifier.counts() == {"sent": len(sent), "failed": 0, "dropped": 0}


@pytest.mark.parametrize(
    ("answers", "tries", "counts", "words"),
    [
        ((503, 503, 200), 3, (1, 0), ""),
        ((429, 200), 2, (1, 0), ""),
        ((503,), 3, (0, 1), "HTTP status 503"),
        ((404,), 1, (0, 1), "HTTP status 404"),
        ((302,), 1, (0, 1), "HTTP status 302"),
    ],
)
def test_what_may_help_is_tried_again(
    answers: tuple[int, ...], tries: int, counts: tuple[int, int], words: str
) -> None:
    with Receiver(*answers).listening() as receiver:
        notifier = Notifier(receiver.url, json_line, pauses_s=(0.01, 0.01))
        notifier.tell(event("verdict", FAILED))
        until(lambda: sum(notifier.counts().values()))
        assert (notifier.counts()["sent"], notifier.counts()["failed"]) == counts
        assert len(receiver.bodies) == tries
        assert words in notifier.trouble()
        assert notifier.trouble() == "", "a trouble is told once"
        assert words in notifier.close()


def test_a_trouble_that_is_over_and_comes_back_is_told_again() -> None:
    with Receiver(500, 200, 500).listening() as receiver:
        notifier = Notifier(receiver.url, json_line, pauses_s=())
        told = []
        for count in (1, 2, 3):
            notifier.tell(event("verdict", FAILED))
            until(lambda expected=count: sum(notifier.counts().values()) == expected)
            told.append(bool(notifier.trouble()))
        assert told == [True, False, True]
        assert notifier.close().startswith("2 of 3 notifications")


def test_nobody_waits_for_a_receiver_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Room is bounded, the oldest goes first, telling takes no time, and the end comes when it must."""
    monkeypatch.setattr(notify, "MOST_WAITING", 10)
    with Receiver(0).listening() as receiver:
        notifier = Notifier(receiver.url, json_line, timeout_s=30)
        notifier.tell(event("verdict", FAILED))
        until(lambda: receiver.bodies)
        begun_s = time.monotonic()
        for number in range(2, 52):
            notifier.tell(event("verdict", FAILED, number))
        assert time.monotonic() - begun_s < 5
        assert notifier.counts()["dropped"] == 40
        assert [json.loads(body)["trace"] for body in notifier._waiting] == list(range(42, 52))
        words = notifier.close(wait_s=0.2)
        assert words.startswith("51 of 51 notifications were not delivered"), words
        assert time.monotonic() - begun_s < 10


def test_a_run_that_ends_at_once_waits_for_the_tries(tmp_path: Path) -> None:
    """The receiver is busy when the verdict comes, and the run is over: it is asked again."""
    with Receiver(503, 204).listening() as receiver, pipes(tmp_path, files("fail-quota-403")) as sources:
        process = command("watch", "-i", sources[0], "-i", sources[1], "--notify", receiver.url)
        output, errors = process.communicate(timeout=60)
    assert process.returncode == 1 and len(receiver.bodies) == 2
    assert json.loads(output.splitlines()[-1])["event"] == "report"
    place = receiver.url.removesuffix("/hook")
    # Where it was tried again before the end, there was nothing to wait for.
    assert errors.decode() in (
        "",
        f"tracer: retrying 1 notification to {place} for at most 10 s (Ctrl-C stops this)\n",
    )


def test_at_the_end_what_failed_is_tried_again_while_there_is_time() -> None:
    said: list[str] = []
    with Receiver(503, 503, 204).listening() as receiver:
        notifier = Notifier(receiver.url, json_line, pauses_s=(3.0, 0.2))
        for number in (1, 2, 3):
            notifier.tell(event("verdict", FAILED, number))
        assert notifier.close(wait_s=60, say=said.append) == ""
    assert [json.loads(body)["trace"] for body in receiver.bodies] == [1, 1, 1, 2, 3]
    assert said == [f"retrying 3 notifications to {notifier.name} for at most 60 s (Ctrl-C stops this)"]


def test_an_end_that_comes_before_the_next_try_lets_it_come_sooner(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notify, "LAST_TRY_S", 60)
    with Receiver(503, 204).listening() as receiver:
        notifier = Notifier(receiver.url, json_line, pauses_s=(3600,))
        notifier.tell(event("verdict", FAILED))
        until(lambda: notifier._failing)
        assert notifier.close(wait_s=60.2) == ""
        assert len(receiver.bodies) == 2


def test_an_interrupt_ends_the_wait_and_no_more() -> None:
    """What was not delivered is said all the same, with why."""

    def say(words: str) -> None:
        raise KeyboardInterrupt

    with Receiver(503).listening() as receiver:
        notifier = Notifier(receiver.url, json_line, pauses_s=(3600,))
        for number in (1, 2):
            notifier.tell(event("verdict", FAILED, number))
        words = notifier.close(wait_s=3600, say=say)
    assert words == f"2 of 2 notifications were not delivered to {notifier.name}: HTTP status 503"
    assert notifier.counts() == {"sent": 0, "failed": 2, "dropped": 0}


@pytest.mark.long
def test_a_watch_says_once_that_notifications_do_not_arrive(tmp_path: Path) -> None:
    hold = threading.Event()
    with socket.socket() as nobody, pipes(tmp_path, files("fail-quota-403"), hold=hold) as sources:
        nobody.bind(("127.0.0.1", 0))
        place = f"http://127.0.0.1:{nobody.getsockname()[1]}"
        url = f"{place.replace('//', '//user:s3cret@')}/key-s3cret"
        process = command("watch", "-i", sources[0], "-i", sources[1], "--notify", url)
        assert process.stdout is not None
        output = b""
        for line in process.stdout:
            output += line
            if b'"event":"trouble"' in line:
                break
        hold.set()
        rest, errors = process.communicate(timeout=60)
        output += rest
    assert process.returncode == 1, "the code is that of the traces"
    troubles = [
        line["message"] for line in map(json.loads, output.splitlines()) if line["event"] == "trouble"
    ]
    assert troubles == [f"notifications are not delivered to {place}: Connection refused"]
    assert errors.decode().splitlines() == [
        f"tracer: 1 of 1 notifications were not delivered to {place}: Connection refused"
    ]
    assert b"s3cret" not in output + errors


def test_credentials_are_sent_and_not_shown() -> None:
    with Receiver(500).listening() as receiver:
        url = receiver.url.replace("http://", "http://opera%20tor:s3cret@")
        notifier = Notifier(url, json_line, pauses_s=())
        notifier.tell(event("verdict", FAILED))
        words = notifier.close()
    given = receiver.headers[0]["Authorization"].removeprefix("Basic ")
    assert base64.b64decode(given) == b"opera tor:s3cret"
    assert "s3cret" not in receiver.headers[0]["Host"] + words + notifier.name


NO_URLS = [
    "",
    "x",
    "file:///etc/passwd",
    "ftp://host/",
    "http://",
    "http:///path",
    "http://h:99999/",
    "http://[x/",
    "http://host/a b",
    "http://host/\nX-Header: 1",
    "http://hôte/",
    "http://a..b/",
    f"http://{'a' * 64}.example/",
]


@pytest.mark.parametrize("url", NO_URLS)
def test_what_is_no_url_of_the_web_is_refused(url: str) -> None:
    with pytest.raises(UsageError, match="--notify"):
        Notifier(url, json_line)


def test_a_proxy_that_can_be_no_host_is_a_trouble_and_not_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the client library raises, the next notification is tried as well."""
    monkeypatch.setenv("http_proxy", "http://a..b:3128/")
    monkeypatch.delenv("no_proxy", raising=False)
    notifier = Notifier("http://receiver.invalid/", json_line, pauses_s=())
    for number in (1, 2):
        notifier.tell(event("verdict", FAILED, number))
    until(lambda: notifier.counts()["failed"] == 2)
    assert "notifications are not delivered" in notifier.trouble()
    assert notifier.close().startswith("2 of 2 notifications were not delivered")
