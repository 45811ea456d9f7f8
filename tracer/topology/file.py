"""The topology file: planes, roles and ports that the user states; they precede everything inferred."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from pathlib import Path
from string import digits

from tracer.errors import UsageError, close_matches, reason
from tracer.openstack.services import PROTOCOL_OF_PORT, ROLES

__all__ = ["GivenTopology", "load_topology"]

_PROTOCOLS = {name.rstrip(digits): name for name in PROTOCOL_OF_PORT.values()}
"""What a user writes -> name of the decoder. A version may be left out: http for http1."""
_PROTOCOLS |= {name: name for name in PROTOCOL_OF_PORT.values()}
_PLANE_KEYS = {"subnets", "vlan", "interface"}

_Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(slots=True)
class GivenTopology:
    """The contents of a topology file; all of it optional."""

    plane_names: tuple[str, ...] = ()
    subnets: list[tuple[_Network, str]] = field(default_factory=list)
    vlans: dict[int, str] = field(default_factory=dict)
    interfaces: dict[str, str] = field(default_factory=dict)
    roles: dict[tuple[str, int | None], str] = field(default_factory=dict)
    """(address, port or None) -> role"""
    ports: dict[int, str] = field(default_factory=dict)
    """port -> decoder name"""
    allow: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    """Warnings for the user: a role of one's own is allowed, but it may be a known role misspelt."""

    def plane_of_subnet(self, address: str) -> str | None:
        """Return the plane whose subnet holds *address*."""
        if not self.subnets:
            return None
        ip = ipaddress.ip_address(address)
        return next((plane for network, plane in self.subnets if ip in network), None)

    def role(self, address: str, port: int) -> str | None:
        """Return the role given to an address, with or without its port."""
        return self.roles.get((address, port)) or self.roles.get((address, None))


def load_topology(path: Path) -> GivenTopology:
    """Read a topology file (TOML).

    Raises UsageError with file, place and remedy for anything that is not understood.
    """
    try:
        text = path.read_text(encoding="utf-8")
        # Imported here: most runs have no such file.
        import tomllib

        table = tomllib.loads(text)
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {reason(error)}") from None
    except ValueError as error:
        # Also a number of more digits than Python reads.
        raise UsageError(f"{path}: not a TOML file: {error}") from None
    except RecursionError:
        raise UsageError(f"{path}: not a topology file: nested too deep") from None
    unknown = set(table) - {"planes", "roles", "ports", "allow"}
    if unknown:
        raise UsageError(
            f"{path}: unknown table [{sorted(unknown)[0]}];"
            " a topology file has [planes.NAME], [roles], [ports] and allow"
        )
    given = GivenTopology()
    _read_planes(path, table.get("planes", {}), given)
    _read_roles(path, table.get("roles", {}), given)
    _read_ports(path, table.get("ports", {}), given)
    allow = table.get("allow", [])
    if not isinstance(allow, list) or not all(isinstance(a, str) for a in allow):
        raise UsageError(f'{path}: allow must be a list of texts such as ["unobserved:4c"]')
    given.allow = tuple(allow)
    return given


def _read_planes(path: Path, planes: object, given: GivenTopology) -> None:
    if not isinstance(planes, dict):
        raise UsageError(f"{path}: [planes] must hold tables such as [planes.External_api]")
    for name, plane in planes.items():
        where = f"{path}: [planes.{name}]"
        if not isinstance(plane, dict):
            raise UsageError(f"{where} must be a table with subnets, vlan or interface")
        wrong = set(plane) - _PLANE_KEYS
        if wrong:
            raise UsageError(f"{where}: unknown key {sorted(wrong)[0]!r}; known are subnets, vlan, interface")
        subnets = plane.get("subnets", [])
        for subnet in subnets if isinstance(subnets, list) else [subnets]:
            try:
                given.subnets.append((ipaddress.ip_network(subnet, strict=False), name))
            except ValueError:
                raise UsageError(f"{where}: {subnet!r} is no subnet; write it as 10.10.0.0/24") from None
        vlans = plane.get("vlan", [])
        for vlan in vlans if isinstance(vlans, list) else [vlans]:
            if not isinstance(vlan, int) or isinstance(vlan, bool) or not 0 < vlan < 4095:
                raise UsageError(f"{where}: vlan {vlan!r} is not a number from 1 to 4094")
            given.vlans[vlan] = name
        interfaces = plane.get("interface", [])
        for interface in interfaces if isinstance(interfaces, list) else [interfaces]:
            given.interfaces[str(interface)] = name
    # The longest prefix first: a plane may be a subnet of another plane's.
    given.subnets.sort(key=lambda item: -item[0].prefixlen)
    given.plane_names = tuple(planes)


def _read_roles(path: Path, roles: object, given: GivenTopology) -> None:
    if not isinstance(roles, dict):
        raise UsageError(f'{path}: [roles] must hold lines such as nova-api = ["172.28.0.11:8774"]')
    given.remarks = tuple(_slips(path, roles))
    for role, addresses in roles.items():
        for text in addresses if isinstance(addresses, list) else [addresses]:
            given.roles[_endpoint(path, role, text)] = role


def _slips(path: Path, roles: dict[str, object]) -> list[str]:
    """Return a remark on each role that looks like a known one misspelt; grammars would not know it."""
    found = []
    for role in roles:
        known = close_matches(role[:80].lower().replace("_", "-"), ROLES, n=1, cutoff=0.8)
        if known and role not in ROLES:
            found.append(f"{path}: [roles] {role[:80]!r} is a role of your own; did you mean {known[0]}?")
    return found


def _endpoint(path: Path, role: str, text: object) -> tuple[str, int | None]:
    """Return address and port (None: any) of an entry such as 10.0.0.5, 10.0.0.5:8774 or [fd00::1]:8774."""
    address, port = str(text), None
    # An IPv6 address without a port has several colons and no brackets.
    if address.count(":") == 1 or address.startswith("["):
        address, _, digits = address.rpartition(":")
        address = address.strip("[]")
        port = int(digits) if digits.isdecimal() else -1
    try:
        address = str(ipaddress.ip_address(address))
    except ValueError:
        address = ""
    if not address or not (port is None or 0 < port < 65536):
        raise UsageError(
            f"{path}: [roles] {role}: {text!r} is no address;"
            " write 172.28.0.11, 172.28.0.11:8774 or [fd00::1]:8774"
        )
    return address, port


def _read_ports(path: Path, ports: object, given: GivenTopology) -> None:
    if not isinstance(ports, dict):
        raise UsageError(f'{path}: [ports] must hold lines such as 7070 = "http"')
    for port, protocol in ports.items():
        if not str(port).isdecimal() or not 0 < int(port) < 65536:
            raise UsageError(f"{path}: [ports] {port!r} is no port number")
        if not isinstance(protocol, str) or protocol not in _PROTOCOLS:
            known = ", ".join(dict.fromkeys(name.rstrip(digits) for name in PROTOCOL_OF_PORT.values()))
            raise UsageError(f"{path}: [ports] {port}: unknown protocol {protocol!r}; known are {known}")
        given.ports[int(port)] = _PROTOCOLS[protocol]
