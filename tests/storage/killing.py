"""The contract of durable stores with processes: one is killed, several share a store."""

from __future__ import annotations

import json
import os
import random
import signal
from collections import defaultdict
from contextlib import suppress
from pathlib import Path
from subprocess import TimeoutExpired

import pytest

from cra._core.chain import verify
from cra.errors import StorageError
from cra.runtime.config import RuntimeConfig
from cra.runtime.sync import CRARuntime
from cra.storage.base import Storage
from cra.testing.writer import Writer
from tests.storage import process


class ProcessContract:
    """What a durable store promises when processes end. Inherit it and define the fixture `target`.

    `target` is what `open_storage` takes, of an empty store.
    """

    @pytest.fixture
    def target(self, tmp_path: Path) -> str:
        raise NotImplementedError

    def check_store(self, store: Storage) -> None:
        """Assert that the store itself is undamaged, where it can tell."""

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
    @pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
    def test_a_forked_child_is_told_to_open_its_own(self, target: str) -> None:
        store = process.opened(target)
        writer = Writer(store)
        child = os.fork()
        if not child:
            refused = 0
            for call in (writer.append, lambda: store.load(writer.session_id)):
                try:
                    call()
                except StorageError as error:
                    refused += "forked" in error.message
            store.close()
            os._exit(refused)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 2
        writer.append()
        writer.check()
        store.close()

    @pytest.mark.parametrize("kills", [6, pytest.param(210, marks=pytest.mark.slow)])
    def test_nothing_acknowledged_is_lost_when_processes_are_killed(self, target: str, seed: int, kills: int) -> None:
        source = random.Random(seed)
        acknowledged: dict[str, int] = {}
        started: dict[str, set[str]] = defaultdict(set)
        killed = 0
        while killed < kills:
            victims = [process.start("work", target, source.choice((1, 4))) for _ in range(min(2, kills - killed))]
            said = [b""] * len(victims)
            for number, victim in enumerate(victims):
                # The others work on while one is killed, and after it.
                assert victim.stdout is not None
                for _ in range(source.randrange(1, 60)):
                    said[number] += victim.stdout.readline()
                victim.send_signal(signal.SIGKILL)
                # All that it had said by then, also what was not read yet; the last line may be cut.
                said[number] += victim.stdout.read()
                victim.wait()
                victim.stdout.close()
                killed += 1
            for line in b"\n".join(said).splitlines():
                kind, _, rest = line.decode().partition(" ")
                session_id, _, value = rest.partition(" ")
                if kind == "acknowledged" and value:
                    acknowledged[session_id] = max(acknowledged.get(session_id, 0), int(value))
                elif kind == "started" and len(value) == 36:
                    started[session_id].add(value)
            store = process.opened(target)
            self.check_store(store)
            for session_id in {line.split()[1].decode() for line in b"\n".join(said).splitlines() if b" " in line}:
                if session_id in acknowledged or session_id in started:
                    check_recovered(store, session_id, acknowledged.get(session_id, 1), started[session_id])
            store.close()
        assert sum(acknowledged.values()) > kills
        store = process.opened(target)
        found = {record.session_id for record in store.sessions(limit=10**6)}
        assert found >= acknowledged.keys() | {session_id for session_id, those in started.items() if those}
        for session_id in found:
            check_recovered(store, session_id, acknowledged.get(session_id, 1), started[session_id])
        store.close()

    def test_processes_that_race_on_one_session_make_one_chain_and_never_exceed_a_limit(self, target: str) -> None:
        with CRARuntime(RuntimeConfig(storage=process.opened(target))) as made:
            made.load_atlas_from_json(process.ATLAS)
            session = made.create_session("agent-1", "race")
            made.resolve(session.id, "count tickets")
            racers = [process.start("race", target, session.id, 20) for _ in range(2)]
            outputs = [racer.communicate(timeout=60)[0].decode() for racer in racers]
            assert [racer.returncode for racer in racers] == [0, 0]
            allowed = [int(output.rsplit("allowed ", 1)[1]) for output in outputs]
            assert sum(allowed) == 25
            assert made.verify_chain(session.id).ok
            trace = made.get_trace(session.id)
            assert len(trace.of_type("action.executed")) == 25
            assert len(trace.of_type("action.denied")) == 15
            assert made.get_session(session.id).action_count == 25

    def test_processes_share_a_store_each_with_threads_of_its_own(self, target: str) -> None:
        # As the workers of a service do.
        workers = [process.start("append", target, 30) for _ in range(2)]
        outputs = [worker.communicate(timeout=60)[0].decode() for worker in workers]
        assert [worker.returncode for worker in workers] == [0, 0]
        store = process.opened(target)
        lines = [line.split() for output in outputs for line in output.splitlines()]
        assert len(lines) == 8
        for session_id, events in lines:
            verdict = verify(store.events(session_id))
            assert (verdict.ok, verdict.events, int(events)) == (True, 31, 31)
        store.close()

    def test_processes_that_open_a_new_store_at_once_all_get_it(self, target: str) -> None:
        openers = [process.start("open", target) for _ in range(3)]
        assert [opener.communicate(timeout=60)[0] for opener in openers] == [b"0\n"] * 3
        assert [opener.returncode for opener in openers] == [0] * 3

    @pytest.mark.parametrize("kills", [3, pytest.param(40, marks=pytest.mark.slow)])
    def test_a_store_whose_first_opener_is_killed_opens(self, target: str, seed: int, kills: int) -> None:
        source = random.Random(seed)
        for _ in range(kills):
            opener = process.start("open", target)
            with suppress(TimeoutExpired):
                # Most of it is the start of Python; the store is made near the end.
                opener.communicate(timeout=source.uniform(0.05, 0.3))
            opener.kill()
            opener.communicate()
        store = process.opened(target)
        assert store.sessions() == []
        self.check_store(store)
        store.close()


def check_recovered(store: Storage, session_id: str, acknowledged: int, started: set[str]) -> None:
    """Assert that a session is whole, has what was acknowledged, and did nothing without its durable intent."""
    data = store.events(session_id)
    verdict = verify(data)
    assert verdict.ok, verdict.message
    assert verdict.events >= acknowledged
    head = store.load(session_id)[1]
    assert (head.sequence, head.hash) == (verdict.events, verdict.head)
    events = [json.loads(line) for line in data.splitlines()]
    approved = {event["payload"].get("execution_id") for event in events if event["event_type"] == "action.approved"}
    done = {event["payload"]["execution_id"] for event in events if event["event_type"] == "action.executed"}
    # Whatever the executor began, and whatever is recorded as done, has its intent in the store.
    assert started <= approved
    assert done <= approved
