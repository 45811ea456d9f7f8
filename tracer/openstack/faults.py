"""Where the services put the text of a fault, and whose fault it is by nova's own words."""

from __future__ import annotations

import re

from tracer.openstack.services import CINDER_API, NEUTRON_SERVER

__all__ = [
    "CUT_FIELDS",
    "FIELDS",
    "NO_REPLY",
    "OF_A_SERVER",
    "meaning_of",
    "service_blamed",
    "waited_for_callback",
]

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

# --- whose fault ------------------------------------------------------------------------------------
# Classes and words of nova's exceptions by which nova-compute gives a build up, and the service that failed
# it. Sources: nova/exception.py; nova/compute/manager.py (_build_and_run_instance, _build_resources,
# _prep_block_device), Liberty to 2026.1. A class is in notifications, its words are everywhere.

_BLAMED = (
    (
        NEUTRON_SERVER,
        r"PortBinding\w*Failed|[Bb]inding failed for port|Failed to (activate|delete) binding for port"
        r"|VirtualInterface\w*Exception|[Vv]irtual [Ii]nterface (creation|plugin) failed"
        r"|[Uu]nplug virtual interface|virtual interface with unique mac address"
        r"|NetworkAllocation|Failed to allocate (the )?network|vif_type=(binding_failed|unbound)"
        r"|NoMoreFixedIps|No fixed IP addresses available|NoMoreNetworks|FixedIp\w+|IpAddressGeneration"
        r"|PortLimitExceeded|Maximum number of (ports|fixed IPs) exceeded"
        r"|NetworkNotFound|Network \S+ could not be found|PortNotFound|Port (id )?\S+ could not be found"
        r"|PortInUse|Port \S+ is still in use|PortNotUsable|Port \S+ not usable|UnableToAutoAllocateNetwork"
        r"|ExternalNetworkAttachForbidden|[Nn]eutron"
        # An exception of keystoneauth1 names the URL alone.
        r"|://\S{1,200}/v2\.0/(networks|ports|subnets|security-groups|floatingips|extensions)\b",
    ),
    (
        CINDER_API,
        r"VolumeNotCreated|did not finish being created|InvalidBDM|Block ?Device ?Mapping"
        r"|Failure prepping block device|VolumeNotFound|Volume \S+ could not be found|VolumeAttach\w*Failed"
        r"|[Ff]ailed to (get|attach|create) (the )?(volume|snapshot)|InvalidVolume|Invalid volume"
        r"|CinderConnectionFailed|[Cc]inder|://\S{1,200}/v[123](/\w{1,64})?/(volumes|attachments)\b",
    ),
)
_CALLBACK = (
    r"VirtualInterfaceCreateException|Virtual Interface creation failed"
    r"|Failed to allocate the network\(s\), not rescheduling"
)
# Patterns stay texts here: `re` compiles and remembers those that a run with failures needs.


def service_blamed(words: str) -> str:
    """Return the service that failed a build by nova's *words*, or nothing.

    >>> service_blamed("Build of instance 1 aborted: Volume 2 did not finish being created")
    'cinder-api'
    """
    return next((role for role, pattern in _BLAMED if re.search(pattern, words)), "")


def waited_for_callback(words: str) -> bool:
    """Return whether nova says so when the report that a port is plugged failed, or never came."""
    return re.search(_CALLBACK, words) is not None


# --- what exceptions of RPC mean --------------------------------------------------------------------

_MEANINGS = (
    (
        # oslo_messaging/rpc/dispatcher.py; oslo_versionedobjects/exception.py
        r"UnsupportedVersion|IncompatibleObjectVersion|UnsupportedRpc|NoSuchMethod",
        "UnsupportedVersion, IncompatibleObjectVersion and the like mean that the two services differ in"
        " version: an upgrade is not complete, or [upgrade_levels] is wrong",
    ),
)


_VERSIONS = (
    # oslo_versionedobjects/exception.py, IncompatibleObjectVersion
    r"Version (?P<asked>\d{1,4}\.\d{1,4}) of (?P<what>[\w.-]{1,80}) is not supported"
    r"(, supported version is (?P<known>\d{1,4}\.\d{1,4}))?",
    # oslo_messaging/rpc/dispatcher.py, UnsupportedVersion
    r"(?P<what>Endpoint) does not support RPC version (?P<asked>\d{1,4}\.\d{1,4})",
)


def meaning_of(failure: str, asker: str = "its caller", answerer: str = "the service") -> str:
    """Return what the failure in a reply, class and text, means for an operator, or nothing.

    *asker* sent the message that *answerer* could not take.

    >>> meaning_of("IncompatibleObjectVersion: Version 2.8 of Instance is not supported", "a", "b")[:49]
    'b is older than a: it does not know Instance 2.8:'
    """
    words = next((words for pattern, words in _MEANINGS if re.match(pattern, failure)), "")
    found = next(filter(None, (re.search(pattern, failure) for pattern in _VERSIONS)), None)
    if not words or found is None:
        return words
    asked, known = found["asked"], found.groupdict().get("known")
    what = "RPC version" if found["what"] == "Endpoint" else found["what"]
    # A service takes all that is older within a major version. Only an older one is asked for more.
    if known is not None and _parts(asked) < _parts(known):
        return f"{asker} is older than {answerer}: it sent {what} {asked}, not {known}: {words}"
    most = f"knows {what} {known}, not {asked}" if known else f"does not know {what} {asked}"
    return f"{answerer} is older than {asker}: it {most}: {words}"


def _parts(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))
