"""From which networks a credential is needed: ``10.1.0.0/16 optional, 127.0.0.0/8 off``."""

from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

AUTH_MODES = ("required", "optional", "off")  # the stricter, the earlier
WITHOUT_CREDENTIAL = {"optional": "what old clients need", "off": "everything"}


@dataclass(frozen=True)
class AuthNetwork:
    """A network, and whether its clients need a credential: required, optional or off."""

    network: IPv4Network | IPv6Network
    mode: str

    def __str__(self) -> str:
        return f"{self.network} {self.mode}"


def parse_networks(text: str) -> tuple[AuthNetwork, ...]:
    """Return the networks in ``10.1.0.0/16 optional, fd00::/8 off``; raises ValueError that says what is expected."""
    found = tuple(_network(entry) for entry in text.split(",") if entry.strip())
    networks = [one.network for one in found]
    if again := next((network for network in networks if networks.count(network) > 1), None):
        raise ValueError(f"each network once, and not {again} twice")
    return found


def _network(entry: str) -> AuthNetwork:
    address, _, mode = entry.strip().partition(" ")
    if mode.strip() not in AUTH_MODES:
        raise ValueError(f"a network and one of {', '.join(AUTH_MODES)}, as in 10.1.0.0/16 optional")
    try:
        return AuthNetwork(ip_network(address), mode.strip())
    except ValueError as error:
        raise ValueError(f"networks as in 10.1.0.0/16 or fd00::/8 ({error})") from None


def mode_for(address: str, networks: Sequence[AuthNetwork], otherwise: str) -> str:
    """Return the mode of the narrowest network that holds ``address``, or ``otherwise``."""
    try:
        client = _plain(ip_address(address))
    except ValueError:  # no address: a socket of Unix, or a proxy that names none
        return otherwise
    holding = [one for one in networks if client in one.network]
    return max(holding, key=lambda one: one.network.prefixlen).mode if holding else otherwise


def _plain(address: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    """Return the IPv4 address behind ::ffff:a.b.c.d, as which a socket for both shows it."""
    return getattr(address, "ipv4_mapped", None) or address


def open_to(auth: str, networks: Sequence[AuthNetwork]) -> str:
    """Return in words who may come without a credential; empty if nobody may."""
    modes = [("everybody" if not networks else "everybody else", auth)]
    modes = [(f"clients from {one.network}", one.mode) for one in networks] + modes
    return "; ".join(f"{who} may do {WITHOUT_CREDENTIAL[mode]}" for who, mode in modes if mode in WITHOUT_CREDENTIAL)
