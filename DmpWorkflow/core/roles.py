"""The roles that a token or a user may have. Pure: no database, no network."""

from DmpWorkflow.utils.errors import InvalidInput

ROLES = ("admin", "operator", "submit", "read", "site")
OF_A_SITE = "site:"  # "site:CNAF" is the role site for the site CNAF


def split_role(role: str, site: str | None = None) -> tuple[str, str | None]:
    """Return role and site of "site:CNAF", or of the two; raises InvalidInput for what does not fit."""
    if role.startswith(OF_A_SITE):
        named = role.removeprefix(OF_A_SITE)
        if site and site != named:
            raise InvalidInput(f"role {role!r} names another site than {site!r}")
        role, site = "site", named
    if role not in ROLES:
        raise InvalidInput(f"role {role!r}: expected one of {', '.join(ROLES)}")
    if (role == "site") != bool(site):
        raise InvalidInput("who has the role site, and nobody else, names its site (site:NAME)")
    return role, site
