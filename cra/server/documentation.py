"""The service's own description, as JSON for tools and as a page for people."""

from cra.server.call import Answer, Call, Response


async def openapi(call: Call) -> Answer:
    """Give the OpenAPI document."""
    return Response(b"{}")


async def page(call: Call) -> Answer:
    """Give the documentation page."""
    return Response(b"<!doctype html><title>CRA</title>", media="text/html")
