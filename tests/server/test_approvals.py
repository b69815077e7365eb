"""An agent's list of approvals is read for it alone."""

from __future__ import annotations

from typing import Any

import httpx

from cra.server.settings import ServiceSettings
from cra.storage.memory import MemoryStorage
from tests.server.desk import desk, request
from tests.server.identities import make_key
from tests.server.running import running
from tests.storage.reading import Reading


def register(runtime: Any) -> None:
    runtime.register_executor("*", lambda parameters: {"done": parameters}, inline=True)


def test_an_agents_list_reads_no_other_agents_approvals() -> None:
    store = Reading(MemoryStorage())
    asked = {"one": 3, "other": 100}
    headers = {name: {"X-API-Key": make_key(store, agent_id=name, subject=name, roles=["agent"])[1]} for name in asked}
    settings = ServiceSettings(storage="memory", shutdown_seconds=5)
    with (
        running(settings, storage=store, atlases=(desk(),), register=register) as service,
        httpx.Client(base_url=service.url, timeout=60) as client,
    ):
        for name, count in asked.items():
            session = client.post("/v1/sessions", json={"agent_id": name, "goal": "g"}, headers=headers[name]).json()
            client.post("/v1/resolve", json=request(session), headers=headers[name]).raise_for_status()
            for number in range(count):
                pay = {"action_id": "desk.pay", "parameters": {"number": number}}
                url = f"/v1/sessions/{session['session_id']}/execute"
                client.post(url, json=pay, headers=headers[name]).raise_for_status()
        for name, count in asked.items():
            for query in ({}, {"status": "pending"}):
                store.read.clear()
                page = client.get("/v1/approvals", params={"limit": 1000, **query}, headers=headers[name]).json()
                assert len(page["approvals"]) == len(store.read) == count
                assert {record.agent_id for record in store.read} == {name}
