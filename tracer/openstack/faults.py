"""The words in which the cloud says why, and where they stand."""

from __future__ import annotations

__all__ = ["CUT_FIELDS", "FIELDS", "NO_REPLY"]

FIELDS = (
    "message",
    "detail",
    "errorDes",
    "reasonDes",
    "reason",
    "description",
    "error",
    "title",
    "faultstring",
)
"""Names of JSON members that hold a fault's words, best first.

OpenStack (`{"forbidden": {"message": …}}`, `{"NeutronError": …}`, `{"errors": [{"detail": …}]}`:
nova/api/openstack/wsgi.py, the errors of the API guidelines), FusionCompute (errorDes, reasonDes: its
interface reference), other gateways (description, title, faultstring).
"""
CUT_FIELDS = ("message", "detail", "errorDes")
"""Those that are worth looking for where the JSON is cut."""

NO_REPLY = "message ID"
"""What stands before the id of a message that nobody answered: oslo_messaging/_drivers/amqpdriver.py."""
