"""Notifications of creations that are stuck or failed: each an HTTP POST of the event's JSON line.

A separate thread sends them one after the other, so a slow or absent receiver does not delay the run. A
notification that is not accepted is retried a few times, then counted as failed. The queue is bounded; when
it is full, the oldest is dropped. At the end of a run, FLUSH_S are left for pending ones, retries included.
"""

from __future__ import annotations

import base64
import threading
from collections import Counter, OrderedDict, deque
from collections.abc import Callable
from contextlib import suppress
from http.client import HTTPException
from urllib.error import HTTPError, URLError
from urllib.parse import unquote, urlsplit, urlunsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from tracer import __version__
from tracer.capture.live import monotonic_s
from tracer.errors import UsageError
from tracer.model.events import Event
from tracer.model.tables import trim

__all__ = ["Notifier"]

TIMEOUT_S = 5.0
PAUSES_S = (0.5, 2.0, 8.0)
"""Pauses before the second attempt, the third and so on."""
MOST_WAITING = 1_000
MOST_KNOWN = 10_000
FLUSH_S = 10.0
LAST_TRY_S = 1.0
"""Time before the end of the wait at which the last attempt is made, when its pause would be longer."""
# Statuses below 500 that a retry may change: request timeout, too early, too many requests.
_TRY_AGAIN = frozenset({408, 425, 429})
_BAD = frozenset({"rejected", "error", "stuck", "deleted"})

Encode = Callable[[Event], bytes]


class _NoRedirects(HTTPRedirectHandler):
    """Follows no redirect: urllib would turn the POST into a GET. The status is reported instead."""

    def redirect_request(self, *_: object) -> None:
        return None


class Notifier:
    """Sends events that need attention to *url*, and the events that end the need.

    *encode* makes the body of an event. Raises UsageError unless *url* is an http or https URL. Credentials
    in it are sent as Basic authentication and never shown; nor is the path, which may hold a key.
    """

    def __init__(
        self,
        url: str,
        encode: Encode,
        timeout_s: float = TIMEOUT_S,
        pauses_s: tuple[float, ...] = PAUSES_S,
    ) -> None:
        self._url, self._headers, self.name = _parted(url)
        self._encode = encode
        self._timeout_s, self._pauses_s = timeout_s, pauses_s
        self._known: OrderedDict[int, None] = OrderedDict()
        """Numbers of traces that were reported as stuck or failed."""
        self._waiting: deque[bytes] = deque()
        self._news = threading.Condition()
        self._busy = self._given_up = False
        self._failing = ""
        """Why the notification that is being sent was not accepted yet."""
        self._until_s: float | None = None
        """Monotonic time at which `close` stops waiting; None while the run goes on."""
        self._counts = Counter(sent=0, failed=0, dropped=0)
        self._trouble = ""
        self._is_reported = False
        self._opener = build_opener(_NoRedirects)
        self._thread = threading.Thread(target=self._run, name="notifies", daemon=True)
        self._thread.start()

    def tell(self, event: Event) -> None:
        """Queue *event* for sending if it is one that needs attention, or ends that; never waits."""
        if not self._is_wanted(event):
            return
        body = self._encode(event)
        with self._news:
            if len(self._waiting) >= MOST_WAITING:
                self._waiting.popleft()
                self._fails("dropped", f"more than {MOST_WAITING:,} are pending")
            self._waiting.append(body)
            self._news.notify()

    def _is_wanted(self, event: Event) -> bool:
        if event.trace is None or event.verdict is None:
            return False
        number, verdict = event.trace.number, event.verdict
        known = number in self._known
        if event.kind == "stalled" or (
            event.kind == "verdict" and (verdict.verdict == "deviates" or verdict.outcome in _BAD)
        ):
            self._known[number] = None
            trim(self._known, MOST_KNOWN)
            return True
        if event.kind in ("verdict", "resumed", "withdrawn") and known:
            # It was reported as stuck or failed before: the recovery is reported too.
            del self._known[number]
            return True
        return False

    def counts(self) -> dict[str, int]:
        """Return how many notifications were sent, failed, and were dropped because the queue was full."""
        return dict(self._counts)

    def trouble(self) -> str:
        """Return a message when notifications do not arrive, once for each failure period; else ''."""
        with self._news:
            if not self._trouble or self._is_reported:
                return ""
            self._is_reported = True
            return f"notifications are not delivered to {self.name}: {self._trouble}"

    def close(self, wait_s: float = FLUSH_S, say: Callable[[str], None] = lambda words: None) -> str:
        """Send pending notifications within *wait_s*; return a message about those not delivered, or ''.

        *say* receives one message when the receiver does not accept and is waited for. A KeyboardInterrupt
        ends only the wait.
        """
        until_s, said = monotonic_s() + wait_s, False
        with self._news:
            self._until_s = until_s
            self._news.notify_all()
            with suppress(KeyboardInterrupt):
                while (self._waiting or self._busy) and (left_s := until_s - monotonic_s()) > 0:
                    if self._failing and not said:
                        said = True
                        say(self._waits_words(wait_s))
                    self._news.wait(left_s)
            self._given_up = True
            self._news.notify_all()
            self._counts["failed"] += len(self._waiting) + self._busy
            self._busy = False
            self._waiting.clear()
            counts = self._counts
            lost = counts["failed"] + counts["dropped"]
            if not lost:
                return ""
            why = self._failing or self._trouble
            why = f": {why}" if why else ""
            return f"{lost} of {lost + counts['sent']} notifications were not delivered to {self.name}{why}"

    def _waits_words(self, wait_s: float) -> str:
        count = len(self._waiting) + self._busy
        what = f"{count:,} notifications" if count != 1 else "1 notification"
        return f"retrying {what} to {self.name} for at most {wait_s:g} s (Ctrl-C stops this)"

    # --- the thread ---

    def _run(self) -> None:
        while True:
            with self._news:
                while not self._waiting and not self._given_up:
                    self._news.wait()
                if self._given_up:
                    return
                body = self._waiting.popleft()
                self._busy = True
            why = self._send(body)
            with self._news:
                self._failing = ""
                if not self._given_up:
                    self._busy = False
                    if why:
                        self._fails("failed", why)
                    else:
                        self._counts["sent"] += 1
                        self._trouble, self._is_reported = "", False
                self._news.notify_all()

    def _fails(self, how: str, why: str) -> None:
        self._counts[how] += 1
        self._trouble = why

    def _send(self, body: bytes) -> str:
        """Send *body*, with retries where they may help; return why it was not accepted, or ''."""
        for pause_s in (*self._pauses_s, 0.0):
            why, again = self._post(body)
            if not why or not again or not pause_s:
                return why
            if not self._pause(pause_s, why):
                return why
        return why

    def _pause(self, pause_s: float, why: str) -> bool:
        """Wait *pause_s* before a retry, less when the run ends; return whether to make the retry."""
        begun_s = monotonic_s()
        with self._news:
            self._failing = why
            self._news.notify_all()
            while not self._given_up:
                due_s = begun_s + pause_s
                if self._until_s is not None:
                    due_s = min(due_s, self._until_s - LAST_TRY_S)
                left_s = due_s - monotonic_s()
                if left_s <= 0:
                    return due_s > begun_s
                self._news.wait(left_s)
            return False

    def _post(self, body: bytes) -> tuple[str, bool]:
        """Return why *body* was not accepted ('' when it was), and whether a retry may help."""
        request = Request(self._url, body, self._headers)  # noqa: S310  # http and https only: see _parted
        try:
            with self._opener.open(request, timeout=self._timeout_s):
                return "", False
        except HTTPError as error:
            with error:
                return f"HTTP status {error.code}", error.code >= 500 or error.code in _TRY_AGAIN
        except URLError as error:
            cause = error.reason
            return (getattr(cause, "strerror", "") or _words(cause)), True
        except (OSError, HTTPException, ValueError) as error:
            # ValueError: an invalid host name, in the URL or in a proxy variable of the environment.
            return _words(error), True


def _words(error: object) -> str:
    """Return the reason without text that the peer may have written."""
    return "no answer in time" if isinstance(error, TimeoutError) else type(error).__name__


def _parted(url: str) -> tuple[str, dict[str, str], str]:
    """Return the URL without credentials, the request headers, and the part of the URL that may be shown."""
    headers = {"Content-Type": "application/json", "User-Agent": f"tracer/{__version__}"}
    try:
        parts = urlsplit(url)
        port = f":{parts.port}" if parts.port is not None else ""
        host = parts.hostname or ""
        # Raises UnicodeError, a ValueError, for a label that is empty or too long.
        host.encode("idna")
    except ValueError:
        raise UsageError("--notify: not a URL: write http://HOST/PATH or https://HOST/PATH") from None
    # urlsplit silently drops line feeds and tabs: such a URL is refused, since another one would be used.
    plain = url.isascii() and url.isprintable() and " " not in url
    if parts.scheme not in ("http", "https") or not host or not plain:
        raise UsageError("--notify: not a usable URL: write http://HOST/PATH or https://HOST/PATH")
    place = (f"[{host}]" if ":" in host else host) + port
    if parts.username is not None:
        words = f"{unquote(parts.username)}:{unquote(parts.password or '')}".encode()
        headers["Authorization"] = f"Basic {base64.b64encode(words).decode()}"
    bare = urlunsplit((parts.scheme, place, parts.path or "/", parts.query, ""))
    return bare, headers, f"{parts.scheme}://{place}"
