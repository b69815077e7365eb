"""OpenID discovery: from an issuer's URL to where its keys are."""

from cra.errors import ConfigInvalid
from cra.server.auth.fetch import FetchFailed, check_url, fetch_json, is_loopback

_PATH = "/.well-known/openid-configuration"


def discover(issuer: str) -> str:
    """Return the issuer's `jwks_uri`; raises `FetchFailed`. Blocks.

    The document has to name the issuer exactly as the settings do, or it is somebody else's. Only an issuer on this
    machine may have its keys on this machine without https.
    """
    parts = check_url(issuer, what="issuer")
    if parts.query:
        raise ConfigInvalid(f"issuer is `{issuer}`, expected an https URL without a query")
    document = fetch_json(issuer.rstrip("/") + _PATH)
    if document.get("issuer") != issuer:
        raise FetchFailed(f"issuer `{issuer}`: its configuration names another issuer")
    uri = document.get("jwks_uri")
    if not isinstance(uri, str) or len(uri) > 2000:
        raise FetchFailed(f"issuer `{issuer}`: its configuration has no jwks_uri")
    try:
        check_url(uri, what="jwks_uri", loopback=is_loopback(parts.hostname or "") and parts.scheme == "http")
    except ConfigInvalid as error:
        raise FetchFailed(f"issuer `{issuer}`: {error.message}") from None
    return uri
