"""How requests come in: over TLS or not, and through how many proxies."""

import ipaddress

from flask import Flask, Response, request
from werkzeug.middleware.proxy_fix import ProxyFix

from DmpWorkflow.config.settings import ServerSettings

STRICT_TRANSPORT = f"max-age={365 * 24 * 3600}"  # that browsers remember to ask this host over HTTPS only
UNKNOWN_ADDRESS = "unknown"


def init_app(app: Flask, server: ServerSettings) -> None:
    """Believe the trusted proxies, and nobody else, about who asks; tell browsers to stay with HTTPS."""
    if server.trusted_proxies:
        number = server.trusted_proxies
        # Not the host: proxies hand that over as it is, and some let anything through that a client writes there.
        proxied = ProxyFix(app.wsgi_app, x_for=number, x_proto=number, x_host=0, x_port=0, x_prefix=0)
        app.wsgi_app = proxied  # type: ignore[method-assign]
    if is_secure(server):
        app.after_request(_stay_with_https)


def is_secure(server: ServerSettings) -> bool:
    """Say whether people and sites reach this server over HTTPS, from itself or from a proxy."""
    return server.url.startswith("https://")


def address() -> str:
    """Return from where the request comes, as a proxy that is trusted says it or else as the connection does."""
    known = _address()
    return UNKNOWN_ADDRESS if known is None else str(known)


def network() -> str:
    """Return what stands for one place: an address, or of IPv6 the network of a customer."""
    known = _address()
    if isinstance(known, ipaddress.IPv6Address):
        return str(ipaddress.IPv6Network((int(known), 64), strict=False))
    return UNKNOWN_ADDRESS if known is None else str(known)


def _address() -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        known = ipaddress.ip_address(request.remote_addr or "")
    except ValueError:  # a proxy that tells no address, or fewer proxies than the configuration says
        return None
    return (isinstance(known, ipaddress.IPv6Address) and known.ipv4_mapped) or known


def _stay_with_https(reply: Response) -> Response:
    reply.headers["Strict-Transport-Security"] = STRICT_TRANSPORT
    return reply
