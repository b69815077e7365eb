"""cra keys: make, list, rotate and revoke the keys of a service, in its store."""

from typing import Annotated, Any

import typer

from cra.cli._exit import UsageError
from cra.cli._options import JsonOption, StorageOption, settings
from cra.cli._output import Output
from cra.cli._tenant import ActorOption, TenantOption, open_tenant

KeyArgument = Annotated[str, typer.Argument(metavar="KEY", help="The key's id.", show_default=False)]
_DAY_US = 86_400_000_000


def create(
    subject: Annotated[str, typer.Option("--subject", metavar="NAME", help="Whom the key is for.", show_default=False)],
    role: Annotated[
        list[str], typer.Option("--role", metavar="ROLE", help="What it may do; repeatable.", show_default=False)
    ],
    tenant: TenantOption = "default",
    agent: Annotated[
        str | None,
        typer.Option("--agent", metavar="NAME", help="Act as this agent and no other.", show_default=False),
    ] = None,
    scope: Annotated[
        list[str] | None,
        typer.Option("--scope", metavar="PERMISSION", help="Only this of what the roles permit; repeatable."),
    ] = None,
    expires_days: Annotated[
        int | None,
        typer.Option("--expires-days", min=1, max=36_500, help="How long it is good; for good, if nothing is said."),
    ] = None,
    actor: ActorOption = "cra.cli",
    storage: StorageOption = None,
    json: JsonOption = False,
) -> int:
    """Make a key and print it: it is shown this once, and only its digest is kept.

    Who has the store may make any key, also the first: this is how the first administrator of a tenant gets in.

    \b
    Examples:
      cra keys create --subject dana@example.com --role admin
      cra keys create --subject billing --role agent --agent support-1 --expires-days 90 --tenant acme
      KEY=$(cra keys create --subject ci --role developer --scope atlases.load --storage sqlite:///cra.db)
    """
    from cra.protocol.codec import to_struct
    from cra.protocol.times import format_timestamp
    from cra.server.auth import issuing

    chosen = settings(storage=storage, json=json)
    out = Output(chosen.json)
    with open_tenant(chosen, tenant, create=True) as place:
        now_us = place.now_us
        value: dict[str, Any] = {"subject": subject, "roles": role}
        if agent is not None:
            value["agent_id"] = agent
        if scope:
            value["scopes"] = scope
        if expires_days is not None:
            value["expires_at"] = format_timestamp(now_us + expires_days * _DAY_US)
        request = to_struct(value, issuing.KeyRequest, what="key")

        def make() -> tuple[dict[str, Any], issuing.Write]:
            key, made, write = issuing.create_key(
                place.storage, request, maker=issuing.ANYTHING, actor=actor, now_us=now_us
            )
            return issuing.shown(key, now_us) | {"key": made.text}, write

        shown = place.change(actor, make)
    _print(out, shown)
    return 0


def list_(tenant: TenantOption = "default", storage: StorageOption = None, json: JsonOption = False) -> int:
    """List the keys of a tenant, in the order in which they were made.

    \b
    Examples:
      cra keys list
      cra keys list --tenant acme --json
    """
    from cra.server.auth import issuing, keys

    chosen = settings(storage=storage, json=json)
    out = Output(chosen.json)
    with open_tenant(chosen, tenant) as place:
        found = issuing.readable(place.storage.documents(keys.KIND))
        values = [issuing.shown(key, place.now_us) for key in found]
    if chosen.json:
        out.data({"keys": values})
        return 0
    columns = ("key_id", "subject", "roles", "agent_id", "status", "expires_at")
    rows = [[" ".join(v[c]) if c == "roles" else v.get(c) for c in columns] for v in values]
    out.table(("key", "subject", "roles", "agent", "status", "expires"), rows)
    if not values:
        out.note(f"tenant `{tenant}` has no key; `cra keys create` makes one")
    return 0


def rotate(
    key: KeyArgument,
    tenant: TenantOption = "default",
    overlap: Annotated[
        int, typer.Option("--overlap", metavar="SECONDS", min=0, help="How long the secret before stays good.")
    ] = 0,
    actor: ActorOption = "cra.cli",
    storage: StorageOption = None,
    json: JsonOption = False,
) -> int:
    """Give a key another secret and print it; with --overlap the one before stays good for a while.

    \b
    Examples:
      cra keys rotate 7m2k9q4x1c8v5b3n
      cra keys rotate 7m2k9q4x1c8v5b3n --overlap 86400 --tenant acme
    """
    from cra.server.auth import issuing

    if overlap > issuing.MAX_OVERLAP_SECONDS:
        raise UsageError(f"--overlap is `{overlap}`, expected at most {issuing.MAX_OVERLAP_SECONDS}")
    chosen = settings(storage=storage, json=json)
    out = Output(chosen.json)
    with open_tenant(chosen, tenant) as place:

        def make() -> tuple[dict[str, Any], issuing.Write]:
            now_us = place.now_us
            rotated, made, write = issuing.rotate_key(
                place.storage, key, maker=issuing.ANYTHING, overlap_seconds=overlap, now_us=now_us
            )
            return issuing.shown(rotated, now_us) | {"key": made.text}, write

        shown = place.change(actor, make)
    _print(out, shown)
    return 0


def revoke(
    key: KeyArgument,
    tenant: TenantOption = "default",
    last: Annotated[bool, typer.Option("--last", help="Even if no key is left that can manage keys.")] = False,
    actor: ActorOption = "cra.cli",
    storage: StorageOption = None,
    json: JsonOption = False,
) -> int:
    """Revoke a key: every process on the store refuses it within two seconds.

    \b
    Examples:
      cra keys revoke 7m2k9q4x1c8v5b3n
      cra keys revoke 7m2k9q4x1c8v5b3n --tenant acme --last
    """
    from cra.server.auth import issuing

    chosen = settings(storage=storage, json=json)
    out = Output(chosen.json)
    with open_tenant(chosen, tenant) as place:

        def make() -> tuple[dict[str, Any], issuing.Write | None]:
            now_us = place.now_us
            revoked, write = issuing.revoke_key(place.storage, key, maker=issuing.ANYTHING, last=last, now_us=now_us)
            return issuing.shown(revoked, now_us), write

        shown = place.change(actor, make)
    if chosen.json:
        out.data(shown)
    else:
        out.line(f"key {shown['key_id']} of {shown['subject']} is revoked")
    return 0


def _print(out: Output, shown: dict[str, Any]) -> None:
    if out.json:
        out.data(shown)
        return
    out.line(shown["key"])
    roles = " ".join(shown["roles"])
    out.note(f"key {shown['key_id']} for {shown['subject']} ({roles}); it is shown this once, so keep it now")


COMMANDS = {"create": create, "list": list_, "rotate": rotate, "revoke": revoke}
