"""Where the services put the text of a fault in their answers."""

from __future__ import annotations

__all__ = ["CUT_FIELDS", "FIELDS", "NO_REPLY", "OF_A_SERVER"]

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
"""Names of JSON members that hold the text of a fault, best first.

OpenStack (`{"forbidden": {"message": …}}`, `{"NeutronError": …}`, `{"errors": [{"detail": …}]}`:
nova/api/openstack/wsgi.py, the errors of the API guidelines), FusionCompute (errorDes, reasonDes: its
interface reference), other gateways (description, title, faultstring).
"""
CUT_FIELDS = ("message", "detail", "errorDes")
"""Members that are searched for in JSON that was cut."""

NO_REPLY = "message ID"
"""Text before the id of an unanswered message in a time-out: oslo_messaging/_drivers/amqpdriver.py."""
OF_A_SERVER = "fault"
"""Member of a server in error that holds nova's own words (API reference of nova, "Show Server Details")."""
