"""A service with the desk, what stands before it, and a client that does not sleep."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("httpx")
pytest.importorskip("starlette")

from cra.atlas import loader
from cra.client import CRAClient
from tests.client.between import Between
from tests.runtime.desk import ATLAS
from tests.server.running import Running, running


class Work:
    """What the service's executors do, and what they have done."""

    def __init__(self) -> None:
        self.calls: list[dict[str, Any]] = []
        self.gate = threading.Event()
        self.gate.set()

    def register(self, runtime: Any) -> None:
        runtime.register_executor("*", self._run)

    def _run(self, parameters: dict[str, Any]) -> Any:
        self.calls.append(parameters)
        self.gate.wait(30)
        if parameters.get("fail"):
            raise RuntimeError("it broke")
        return {"id": len(self.calls), "big": 2**80}


@pytest.fixture(scope="module")
def work() -> Work:
    return Work()


@pytest.fixture(scope="module")
def service(work: Work) -> Iterator[Running]:
    with running(atlases=(loader.load_json(ATLAS),), register=work.register) as at:
        yield at


@pytest.fixture
def between(service: Running) -> Iterator[Between]:
    made = Between(service.url)
    yield made
    made.close()


@pytest.fixture
def waits() -> list[float]:
    """Return the seconds that the client would have slept."""
    return []


@pytest.fixture
def client(between: Between, waits: list[float]) -> Iterator[CRAClient]:
    with CRAClient(between.url, timeout_s=20) as made:
        made._sleep, made._chance = waits.append, lambda: 0.5
        yield made


@pytest.fixture
def session_id(client: CRAClient) -> str:
    made = client.create_session("agent-1", "help a customer")
    client.resolve(made.id, "help")
    return made.id
