"""Health: whether the process answers, and whether it would take events."""

from cra.errors import Overloaded
from cra.server.call import Answer, Call, json_response


async def live(call: Call) -> Answer:
    """Say that the process answers."""
    return json_response({"status": "ok", "version": call.service.version})


async def ready(call: Call) -> Answer:
    """Say that the store takes events, and what it promises about them."""
    service = call.service
    if service.closing:
        raise Overloaded("the service is shutting down", hint="ask another one")
    await service.probe()
    storage = service.tenancy.storage
    return json_response(
        {"status": "ok", "version": service.version, "storage": storage.name, "durability": storage.durability}
    )
