"""Upkeep: policies are applied and approvals expire without anybody calling, for every tenant."""

import asyncio
import logging

import pytest

from cra import CRARuntime, RuntimeConfig
from cra.atlas.loader import load_json
from cra.errors import ApprovalRequired, SessionNotFound
from cra.server.app import create_app
from cra.server.settings import ServiceSettings
from cra.server.upkeep import Upkeep
from cra.storage.memory import MemoryStorage
from cra.testing.clock import FixedClock
from cra.testing.faults import FaultyStorage
from tests.runtime.desk import ATLAS

LARGE = {"amount": 900}


def test_each_tenant_s_policy_is_applied_and_its_approvals_expire() -> None:
    async def scenario() -> None:
        clock = FixedClock()
        app = create_app(ServiceSettings(storage="memory"), clock=clock, atlases=(load_json(ATLAS, {}),))
        runtimes = {name: app.service.tenancy.get(name).runtime for name in ("default", "acme")}
        ended, waiting = {}, {}
        for name, runtime in runtimes.items():
            await runtime.administration.set_retention({"ended_days": 10 if name == "acme" else 100}, actor="root")
            for stays in (True, False):
                session = (await runtime.create_session("bot", "refund")).session_id
                await runtime.resolve(session, "refund a customer")
                with pytest.raises(ApprovalRequired) as asked:
                    await runtime.execute(session, "refund.create", LARGE)
                if stays:
                    waiting[name] = asked.value.approval_id
                else:
                    # Its approval can expire no more, and is no reason to leave the others.
                    ended[name] = (await runtime.end_session(session)).session_id
        upkeep = Upkeep(app.service, 60)
        await upkeep.turn()
        assert {(await runtimes[name].approvals.get(waiting[name])).status for name in runtimes} == {"pending"}
        clock.advance(11 * 86_400)
        await upkeep.turn()
        assert {(await runtimes[name].approvals.get(waiting[name])).status for name in runtimes} == {"expired"}
        assert (await runtimes["default"].get_session(ended["default"])).status == "ended"
        with pytest.raises(SessionNotFound):
            await runtimes["acme"].get_session(ended["acme"])

    asyncio.run(scenario())


def test_a_store_that_fails_leaves_the_upkeep_going(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        store = FaultyStorage(MemoryStorage())
        app = create_app(ServiceSettings(storage="memory"), storage=store)
        runtime = app.service.tenancy.get("default").runtime
        await runtime.administration.set_retention({"keep_ended": 0}, actor="root")
        session = (await runtime.create_session("bot", "refund")).session_id
        await runtime.end_session(session)
        upkeep = Upkeep(app.service, 60)
        store.fail("before")
        with caplog.at_level(logging.WARNING, "cra.server"):
            await upkeep.turn()
        assert "upkeep: tenant `default`" in caplog.text
        assert (await runtime.get_session(session)).status == "ended"
        await upkeep.turn()
        with pytest.raises(SessionNotFound):
            await runtime.get_session(session)

    asyncio.run(scenario())


def test_a_tenant_that_no_service_can_serve_leaves_the_upkeep_going(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        store = MemoryStorage()
        CRARuntime(RuntimeConfig(storage=store.of_tenant("Team_A"))).create_session("bot", "refund")
        app = create_app(ServiceSettings(storage="memory"), storage=store)
        runtime = app.service.tenancy.get("default").runtime
        await runtime.administration.set_retention({"keep_ended": 0}, actor="root")
        session = (await runtime.create_session("bot", "refund")).session_id
        await runtime.end_session(session)
        with caplog.at_level(logging.WARNING, "cra.server"):
            await Upkeep(app.service, 60).turn()
        assert "upkeep: tenant `Team_A`" in caplog.text
        with pytest.raises(SessionNotFound):
            await runtime.get_session(session)

    asyncio.run(scenario())


def test_it_begins_and_stops_with_the_service() -> None:
    async def scenario() -> None:
        app = create_app(ServiceSettings(storage="memory", upkeep_seconds=1))
        turns = asyncio.Event()
        upkeep = Upkeep(app.service, 1)
        upkeep.turn = _counting(turns)  # type: ignore[method-assign]
        upkeep.start()
        await asyncio.wait_for(turns.wait(), 30)
        await upkeep.stop()
        never = Upkeep(app.service, 0)
        never.start()
        await never.stop()

    asyncio.run(scenario())


def _counting(turns: asyncio.Event):
    async def turn() -> None:
        turns.set()

    return turn
