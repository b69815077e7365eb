"""cra tenants: create, list and close the tenants of a service, in its store."""

from typing import Annotated, Any

import typer

from cra.cli._options import JsonOption, StorageOption, settings
from cra.cli._output import Output
from cra.cli._tenant import ActorOption, open_tenant

TenantArgument = Annotated[
    str, typer.Argument(metavar="NAME", help="Lower-case letters, digits and `-`.", show_default=False)
]


def create(
    name: TenantArgument, actor: ActorOption = "cra.cli", storage: StorageOption = None, json: JsonOption = False
) -> int:
    """Create a tenant; its first key is made with `cra keys create --tenant NAME`.

    \b
    Examples:
      cra tenants create acme
      cra tenants create acme --storage sqlite:///cra.db --actor ops@example.com
    """
    from cra.server.auth import issuing
    from cra.server.identity import SYSTEM_TENANT

    chosen = settings(storage=storage, json=json)
    out = Output(chosen.json)
    with open_tenant(chosen, SYSTEM_TENANT, create=True) as system:

        def make() -> tuple[dict[str, Any], issuing.Write]:
            tenant, write = issuing.create_tenant(system.storage, name, actor=actor, now_us=system.now_us)
            return issuing.tenant_shown(tenant), write

        shown = system.change(actor, make)
    if chosen.json:
        out.data(shown)
    else:
        out.line(shown["name"])
        out.note(f"`cra keys create --tenant {name} --role admin --subject NAME` makes its first key")
    return 0


def list_(storage: StorageOption = None, json: JsonOption = False) -> int:
    """List the tenants, those that are always there first.

    \b
    Examples:
      cra tenants list
      cra tenants list --json
    """
    from cra.server.auth import issuing
    from cra.server.identity import SYSTEM_TENANT

    chosen = settings(storage=storage, json=json)
    out = Output(chosen.json)
    with open_tenant(chosen, SYSTEM_TENANT) as system:
        values = issuing.tenants_shown(system.storage)
    if chosen.json:
        out.data({"tenants": values})
    else:
        rows = [(v["name"], "built in" if v["built_in"] else v["created_at"][:19], v.get("created_by")) for v in values]
        out.table(("tenant", "created", "by"), rows)
    return 0


def remove(
    name: TenantArgument, actor: ActorOption = "cra.cli", storage: StorageOption = None, json: JsonOption = False
) -> int:
    """Close a tenant: nobody gets in any more. Its record stays, and its name is not given again.

    \b
    Examples:
      cra tenants remove acme
    """
    from cra.server.auth import issuing
    from cra.server.identity import SYSTEM_TENANT

    chosen = settings(storage=storage, json=json)
    out = Output(chosen.json)
    with open_tenant(chosen, SYSTEM_TENANT) as system:

        def make() -> tuple[dict[str, Any], issuing.Write]:
            tenant, write = issuing.remove_tenant(system.storage, name, now_us=system.now_us)
            return issuing.tenant_shown(tenant), write

        shown = system.change(actor, make)
    if chosen.json:
        out.data(shown)
    else:
        out.line(f"tenant {shown['name']} is closed")
    return 0


COMMANDS = {"create": create, "list": list_, "remove": remove}
