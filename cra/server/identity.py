"""Who makes a call."""

from msgspec import Struct

from cra.errors import Forbidden

SYSTEM_TENANT = "system"


class Identity(Struct, frozen=True, kw_only=True):
    """What a credential says about its bearer; everything in it was checked.

    `subject` is the person or the service, and what an approval records. With an `agent_id` it acts only as that
    agent. `credential` names what was shown, never its secret: `key:<id>`, `jwt:<issuer>`, `proxy`, `dev`.
    `expires_us` is when it stops being good, for streams that live longer than a call.
    """

    tenant: str
    subject: str
    roles: tuple[str, ...]
    permissions: frozenset[str]
    agent_id: str | None = None
    credential: str
    expires_us: int | None = None

    def require(self, permission: str) -> None:
        """Raise `Forbidden` unless the credential permits it."""
        if permission not in self.permissions:
            raise Forbidden(
                f"the credential does not permit `{permission}`",
                hint="ask an administrator of the tenant for a role that has it (see docs/identity.md)",
                details={"permission": permission},
            )

    def is_for(self, agent_id: str) -> bool:
        """Say whether the credential may act as, and see what belongs to, an agent."""
        return self.agent_id is None or self.agent_id == agent_id
