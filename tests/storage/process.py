"""What a process of its own does in the tests of the SQLite store: work until it is killed, or race with another.

python process.py work PATH THREADS        prints what was started and what was acknowledged, never ends
python process.py race PATH SESSION CALLS  executes that many calls on one session, prints how many were allowed
python process.py open PATH                opens the store, prints the number of sessions
"""

import os
import sys
import threading

from cra.errors import LimitExceeded
from cra.runtime.config import RuntimeConfig
from cra.runtime.sync import CRARuntime
from cra.storage.sqlite import SQLiteStorage

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


def runtime(path: str) -> CRARuntime:
    made = CRARuntime(RuntimeConfig(storage=SQLiteStorage(path, durability="strict")))
    made.load_atlas_from_json(ATLAS)

    def run(parameters, context):
        # One write is below the size up to which a pipe takes it whole.
        os.write(1, f"started {context.session_id} {context.execution_id}\n".encode())
        return {"ok": True}

    made.executor("ticket.*", inline=True)(run)
    return made


def work(path: str, threads: int) -> None:
    made = runtime(path)

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


def race(path: str, session_id: str, calls: int) -> None:
    made = runtime(path)
    allowed = 0
    for number in range(calls):
        try:
            made.execute(session_id, "ticket.count", {"number": number})
            allowed += 1
        except LimitExceeded:
            pass
    made.close()
    print(f"allowed {allowed}")


if __name__ == "__main__":
    mode, path, *rest = sys.argv[1:]
    if mode == "work":
        work(path, int(rest[0]))
    elif mode == "race":
        race(path, rest[0], int(rest[1]))
    else:
        with runtime(path) as opened:
            print(len(opened.list_sessions()))
