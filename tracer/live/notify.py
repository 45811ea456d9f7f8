"""Notifications of creations that are stuck or failed: each an HTTP POST of the event's JSON line.

A thread of its own sends them, one after the other, so that a receiver that is slow or gone holds nothing
up: what it does not take is tried again a few times, then counted and left. The room for those that wait is
bounded; the oldest goes first. At the end of a run what waits is given some seconds, tries again included.
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

__all__ = ["Notifier"]

TIMEOUT_S = 5.0
PAUSES_S = (0.5, 2.0, 8.0)
"""Before the second try, the third …"""
MOST_WAITING = 1_000
MOST_KNOWN = 10_000
FLUSH_S = 10.0
LAST_TRY_S = 1.0
"""A try that has to come sooner than its pause is made so long before that."""
_TRY_AGAIN = frozenset({408, 425, 429})
_BAD = frozenset({"rejected", "error", "stuck"})

Encode = Callable[[Event], bytes]


class _Stay(HTTPRedirectHandler):
    """A redirected POST becomes a GET: better to say that the address is another one."""

    def redirect_request(self, *_: object) -> None:
        return None


class Notifier:
    """Tells *url* of what needs somebody's attention, and when it needs none any more.

    *encode* makes the body of an event. Raises UsageError for what is no http or https URL. Credentials in
    it are sent as Basic authentication and never shown; nor is the path, which may hold a key.
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
        """Traces of which something bad was sent."""
        self._waiting: deque[bytes] = deque()
        self._news = threading.Condition()
        self._busy = self._given_up = False
        self._failing = ""
        """Why the one that is being sent was not taken yet."""
        self._until_s: float | None = None
        """When a run that has ended waits no longer; None while it goes on."""
        self._counts = Counter(sent=0, failed=0, dropped=0)
        self._trouble = ""
        self._is_reported = False
        self._opener = build_opener(_Stay)
        self._thread = threading.Thread(target=self._run, name="notifies", daemon=True)
        self._thread.start()

    def tell(self, event: Event) -> None:
        """Send *event*, if it is one that somebody should know of; never waits."""
        if not self._is_wanted(event):
            return
        body = self._encode(event)
        with self._news:
            if len(self._waiting) >= MOST_WAITING:
                self._waiting.popleft()
                self._fails("dropped", f"more than {MOST_WAITING:,} wait")
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
            if len(self._known) > MOST_KNOWN:
                self._known.popitem(last=False)
            return True
        if event.kind in ("verdict", "resumed", "withdrawn") and known:
            # It was sent as stuck or failed: whoever waits for news of it gets them.
            del self._known[number]
            return True
        return False

    def counts(self) -> dict[str, int]:
        """Return how many were sent, failed, and were dropped for lack of room."""
        return dict(self._counts)

    def trouble(self) -> str:
        """Return in words that notifications do not arrive: once, while it lasts."""
        with self._news:
            if not self._trouble or self._is_reported:
                return ""
            self._is_reported = True
            return f"notifications do not arrive at {self.name}: {self._trouble}"

    def close(self, wait_s: float = FLUSH_S, say: Callable[[str], None] = lambda words: None) -> str:
        """Send what waits, if it takes no longer than *wait_s*; return in words what was not delivered.

        *say* is told, once, that a receiver that does not take it is waited for. A KeyboardInterrupt ends
        the wait, and no more.
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
            return f"{lost} of {lost + counts['sent']} notifications did not arrive at {self.name}{why}"

    def _waits_words(self, wait_s: float) -> str:
        count = len(self._waiting) + self._busy
        what = f"{count:,} notifications are" if count != 1 else "1 notification is"
        return f"{what} tried again at {self.name}, for {wait_s:g} s at most (Ctrl-C ends that)"

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
        """Send *body*, trying again where that may help; return why it was not taken."""
        for pause_s in (*self._pauses_s, 0.0):
            why, again = self._post(body)
            if not why or not again or not pause_s:
                return why
            if not self._pause(pause_s, why):
                return why
        return why

    def _pause(self, pause_s: float, why: str) -> bool:
        """Wait before another try, no longer than there is time for it; return whether to make it."""
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
        """Return why *body* was not taken ('' when it was), and whether another try may help."""
        request = Request(self._url, body, self._headers)  # noqa: S310  # http and https only: see _parted
        try:
            with self._opener.open(request, timeout=self._timeout_s):
                return "", False
        except HTTPError as error:
            with error:
                return f"it answers {error.code}", error.code >= 500 or error.code in _TRY_AGAIN
        except URLError as error:
            cause = error.reason
            return (getattr(cause, "strerror", "") or _words(cause)), True
        except (OSError, HTTPException, ValueError) as error:
            # ValueError: a host that cannot be one, of a proxy in the environment or of the URL.
            return _words(error), True


def _words(error: object) -> str:
    """Why, without what the other end may have written."""
    return "no answer in time" if isinstance(error, TimeoutError) else type(error).__name__


def _parted(url: str) -> tuple[str, dict[str, str], str]:
    """Return the URL without credentials, the headers, and what of it may be shown."""
    headers = {"Content-Type": "application/json", "User-Agent": f"tracer/{__version__}"}
    try:
        parts = urlsplit(url)
        port = f":{parts.port}" if parts.port is not None else ""
        host = parts.hostname or ""
        # An empty label, or one that is too long, is no host for anybody.
        host.encode("idna")
    except ValueError:
        raise UsageError("--notify: that is no URL: write http://HOST/PATH or https://HOST/PATH") from None
    # urlsplit drops line feeds: what it passes over cannot be what was meant.
    plain = url.isascii() and url.isprintable() and " " not in url
    if parts.scheme not in ("http", "https") or not host or not plain:
        raise UsageError("--notify: only http://HOST/PATH and https://HOST/PATH are URLs to notify")
    place = (f"[{host}]" if ":" in host else host) + port
    if parts.username is not None:
        words = f"{unquote(parts.username)}:{unquote(parts.password or '')}".encode()
        headers["Authorization"] = f"Basic {base64.b64encode(words).decode()}"
    bare = urlunsplit((parts.scheme, place, parts.path or "/", parts.query, ""))
    return bare, headers, f"{parts.scheme}://{place}"
