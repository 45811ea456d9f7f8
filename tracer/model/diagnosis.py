"""The values of `tracer doctor`: what a host can do, and what captures hold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

from tracer.model.packets import Capture

__all__ = [
    "Diagnosis",
    "Finding",
    "HostDiagnosis",
    "InterfaceState",
    "Level",
    "RolePlace",
    "StepSight",
    "Traffic",
]

Level = Literal["ok", "note", "bad"]
"""ok · note: works, with a limit · bad: does not work."""


class Finding(NamedTuple):
    """One thing that was looked at: what it is, how it is, and what to do about it."""

    subject: str
    level: Level
    text: str
    remedy: str = ""


class InterfaceState(NamedTuple):
    """A network interface of this host."""

    name: str
    is_up: bool
    addresses: tuple[str, ...]
    """With their prefix length: 10.0.0.4/24."""
    packets: int
    """Received and sent since it exists."""


@dataclass(frozen=True, slots=True)
class HostDiagnosis:
    """What this host can do for tracer."""

    findings: tuple[Finding, ...]
    interfaces: tuple[InterfaceState, ...]


class Traffic(NamedTuple):
    """What was read of one protocol on one plane at one capture point, and what could not be read."""

    capture: str
    """Path of the capture."""
    plane: str
    protocol: str
    """REST, RPC, SQL; or, of what is not decoded, the reason: tls, compressed, unknown protocol …"""
    port: int
    """Port of the servers; 0 for several ports."""
    connections: int
    calls: int
    """0 of what is not decoded."""


class RolePlace(NamedTuple):
    """Where a role was seen."""

    role: str
    addresses: tuple[str, ...]
    """Sorted; of a flood of them the first ones."""
    more: int = 0
    """Addresses that are left out."""


class StepSight(NamedTuple):
    """Whether the calls of a documented step could be seen in the captures."""

    step: str
    title: str
    reason: str = ""
    """Why not; '' where they could."""


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What captures hold, and which steps could be seen in them."""

    captures: list[Capture]
    grammar: str
    grammar_reason: str
    traces: int
    traffic: tuple[Traffic, ...]
    roles: tuple[RolePlace, ...]
    steps: tuple[StepSight, ...]
    remarks: tuple[str, ...] = ()
    """About clocks, planes and damage."""
    advice: tuple[str, ...] = ()
    partial: bool = False
