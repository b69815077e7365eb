"""What a process of its own does in the tests of durable stores: work until it is killed, or race with another.

python process.py work TARGET THREADS        prints what was started and what was acknowledged, never ends
python process.py race TARGET SESSION CALLS  executes that many calls on one session, prints how many were allowed
python process.py append TARGET COUNT        appends to sessions of its own from 4 threads, prints what it wrote
python process.py open TARGET                opens the store, prints the number of sessions

TARGET is what `open_storage` takes.
"""

import os
import subprocess
import sys
import threading
from pathlib import Path

from cra.errors import LimitExceeded
from cra.runtime.config import RuntimeConfig
from cra.runtime.sync import CRARuntime
from cra.storage.base import Storage
from cra.storage.open import open_storage

ATLAS = {
    "atlas_version": "1.0",
    "atlas_id": "com.example.desk",
    "version": "1.0.0",
    "name": "Desk",
    "policies": [
        {
            "policy_id": "calls",
            "type": "rate_limit",
            "actions": ["ticket.count"],
            "parameters": {"max_calls": 25, "window_seconds": 86400},
        }
    ],
    "actions": [
        {
            "action_id": action_id,
            "name": action_id,
            "description": "Does something.",
            "parameters_schema": {"type": "object"},
            "returns_schema": {},
        }
        for action_id in ("ticket.get", "ticket.count")
    ],
}


def start(*arguments: object) -> "subprocess.Popen[bytes]":
    """Run this file in a process of its own."""
    return subprocess.Popen(
        [sys.executable, __file__, *map(str, arguments)],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])},
    )


def opened(target: str) -> Storage:
    return open_storage(target, max_sessions=10**6, max_events=10**9)


def runtime(target: str) -> CRARuntime:
    made = CRARuntime(RuntimeConfig(storage=opened(target)))
    made.load_atlas_from_json(ATLAS)

    def run(parameters, context):
        # One write is below the size up to which a pipe takes it whole.
        os.write(1, f"started {context.session_id} {context.execution_id}\n".encode())
        return {"ok": True}

    made.executor("ticket.*", inline=True)(run)
    return made


def work(target: str, threads: int) -> None:
    made = runtime(target)

    def agent(number: int) -> None:
        while True:
            session = made.create_session(f"agent-{number}", "work until killed")
            for _ in range(4):
                made.resolve(session.id, "get a ticket")
                for _ in range(3):
                    made.execute(session.id, "ticket.get", {"number": number})
                    acknowledged = made._kernel.live(session.id).chain.sequence
                    os.write(1, f"acknowledged {session.id} {acknowledged}\n".encode())

    for number in range(threads):
        threading.Thread(target=agent, args=(number,)).start()


def race(target: str, session_id: str, calls: int) -> None:
    made = runtime(target)
    allowed = 0
    for number in range(calls):
        try:
            made.execute(session_id, "ticket.count", {"number": number})
            allowed += 1
        except LimitExceeded:
            pass
    made.close()
    print(f"allowed {allowed}")


def append(target: str, count: int) -> None:
    from cra.testing.writer import Writer, together

    store = opened(target)

    def one(number: int) -> Writer:
        # The ids of the tests are drawn from a seed, which would be the same in every process.
        writer = Writer(store, f"process-{os.getpid()}", session_id=fresh())
        for _ in range(count):
            writer.append()
        return writer

    for writer in together(4, one):
        writer.check()
        print(writer.session_id, writer.chain.sequence)
    store.close()


def fresh() -> str:
    """Return a session's id that no other process makes."""
    from uuid import uuid4

    return str(uuid4())


if __name__ == "__main__":
    mode, target, *rest = sys.argv[1:]
    if mode == "work":
        work(target, int(rest[0]))
    elif mode == "race":
        race(target, rest[0], int(rest[1]))
    elif mode == "append":
        append(target, int(rest[0]))
    else:
        with runtime(target) as made:
            print(len(made.list_sessions()))
