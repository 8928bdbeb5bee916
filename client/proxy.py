"""Which connections go through an HTTP proxy: gRPC takes one from the environment, also for the machine itself.

Source: gRPC's http_proxy_mapper.cc reads ``grpc_proxy``, ``https_proxy``, ``http_proxy``, in that order and in lower
case only, and leaves out the hosts of ``no_grpc_proxy``, or else ``no_proxy``.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

_VARIABLES = ("grpc_proxy", "https_proxy", "http_proxy")
_EXCEPTIONS = ("no_grpc_proxy", "no_proxy")
_LOOPBACK_NAMES = ("localhost", "ip6-localhost", "ip6-loopback")


@dataclass(frozen=True, slots=True)
class Proxy:
    """What a connection goes through."""

    variable: str
    """Of the environment, by which it is known."""
    address: str
    """Host and port; never the credentials that the variable may have."""
    host: str
    """What it is asked to connect to."""

    @property
    def advice(self) -> str:
        """What to do where the connection fails."""
        return (
            f"the connection goes through the proxy {self.address}, which the environment variable {self.variable}"
            f" names; set no_proxy={self.host} to go without it, or check the proxy"
        )


def proxy_arguments(target: str) -> list[tuple[str, str | int]]:
    """GRPC channel arguments that keep a connection to this machine, or to a list of addresses, off every proxy.

    A list would be sent to the proxy as if it were one name.
    """
    hosts = _hosts(target)
    direct = len(hosts) > 1 or any(_is_loopback(host) for host in hosts)
    return [("grpc.enable_http_proxy", 0)] if direct else []


def proxy_of(target: str, environment: Mapping[str, str] | None = None) -> Proxy | None:
    """What gRPC sends connections to the target through; None where it connects by itself."""
    known = os.environ if environment is None else environment
    if not _hosts(target) or proxy_arguments(target):
        return None
    variable = next((name for name in _VARIABLES if known.get(name)), None)
    if variable is None:
        return None
    host = _hosts(target)[0]
    exceptions = next((known[name] for name in _EXCEPTIONS if known.get(name)), "")
    if any(_matches(host, entry.strip()) for entry in exceptions.split(",")):
        return None
    return Proxy(variable, _without_credentials(known[variable]), host)


def _hosts(target: str) -> list[str]:
    """The hosts of a gRPC target; none for what is no address on a network."""
    if re.match(r"(unix|unix-abstract|vsock|xds):", target):
        return []
    rest = re.sub(r"^(dns|ipv4|ipv6):(//[^/]*/)?", "", target)
    return [_host(address) for address in rest.split(",")]


def _host(address: str) -> str:
    host = re.sub(r":\d+$", "", address)
    return re.sub(r"%25?\w+$", "", host.strip("[]"))


def _is_loopback(host: str) -> bool:
    name = host.lower().rstrip(".")
    if name in _LOOPBACK_NAMES or name.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None) or address
    return bool(mapped.is_loopback or mapped.is_unspecified)


def _matches(host: str, entry: str) -> bool:
    """GRPC's rule: the end of a name, or a network that has the address in it."""
    if not entry:
        return False
    if host.lower().endswith(entry.lower()):
        return True
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(entry, strict=False)
    except ValueError:
        return False


def _without_credentials(value: str) -> str:
    try:
        found = urlsplit(value if "://" in value else f"http://{value}")
        return f"{found.hostname}:{found.port}" if found.port else str(found.hostname)
    except ValueError:
        return "(not a URL)"
