"""What the exceptions of RPC mean: which of two services is older."""

from __future__ import annotations

import pytest

from tracer.openstack.faults import meaning_of

OBJECT = "IncompatibleObjectVersion: Version {} of Instance is not supported, supported version is 2.7"


@pytest.mark.parametrize(
    "failure, older",
    [
        (
            OBJECT.format("2.8"),
            "b",
        ),
        (
            OBJECT.format("1.2"),
            "a",
        ),
        ("UnsupportedVersion: Endpoint does not support RPC version 6.1. Attempted method: f", "b"),
        ("UnsupportedVersion: it is not supported", ""),
    ],
)
def test_which_service_is_older(failure: str, older: str) -> None:
    """By the versions that the exception names; *a* sent the message, *b* could not take it."""
    words = meaning_of(failure, "a", "b")
    assert "upgrade" in words
    assert words.startswith(f"{older} is older than ") if older else "older" not in words
