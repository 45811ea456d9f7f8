"""The nouns: what their repr shows, since a traceback prints what it finds."""

from __future__ import annotations

import pytest

from tracer.model import (
    AmqpContent,
    Connection,
    Endpoint,
    HttpRequest,
    HttpResponse,
    Message,
    SqlStatement,
)

MADE = Connection(1, Endpoint("10.0.0.1", 40000), Endpoint("10.0.0.2", 8774), 0)
AT = ((0, 7),)
SECRET = b'{"adminPass": "s3cret"}'


@pytest.mark.parametrize(
    "message, words",
    [
        (
            HttpRequest(
                MADE, 1, 0, 0, AT, "POST", "/v3/a?key=s3cret", {"x-auth-token": "s3cret"}, SECRET, False
            ),
            "HttpRequest(POST /v3/a, 23 bytes, frame 0#7)",
        ),
        (
            HttpRequest(MADE, 1, 0, 0, (), "GET", "http://u:s3cret@host/v3", {}, b"", False),
            "HttpRequest(GET host/v3, 0 bytes, no frame)",
        ),
        (
            HttpResponse(MADE, 1, 0, 0, AT, 200, "OK", {"x-subject-token": "s3cret"}, SECRET, False),
            "HttpResponse(200, 23 bytes, frame 0#7)",
        ),
        (
            AmqpContent(MADE, 0, 0, 0, AT, 1, "basic.publish", {}, {}, SECRET, 23, False),
            "AmqpContent(basic.publish, 23 bytes, frame 0#7)",
        ),
        (
            SqlStatement(MADE, 1, 0, 0, AT, "query", b"SET PASSWORD = 's3cret'", False),
            "SqlStatement(query, 23 bytes, frame 0#7)",
        ),
    ],
)
def test_the_repr_of_a_message_holds_no_secret(message: Message, words: str) -> None:
    """Method, path without query, sizes and place; no header, no body."""
    assert repr(message) == str(message) == words
