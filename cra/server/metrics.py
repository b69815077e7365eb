"""Counters and histograms for Prometheus."""

from cra.server.call import Answer, Call, Response

TEXT = "text/plain"


async def scrape(call: Call) -> Answer:
    """Give what was counted."""
    return Response(b"", media=TEXT)
