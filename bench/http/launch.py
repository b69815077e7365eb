"""A service with a key, for as long as its standard input is open.

`cra serve` serves every store that outlives it. A store in memory has no key that `cra keys create` could have put
there, so this puts one in and then serves as `cra serve` does.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from bench.work import nothing
from cra.atlas import loader
from cra.runtime.config import RuntimeConfig
from cra.runtime.sync import CRARuntime
from cra.server.app import create_app
from cra.server.auth import issuing
from cra.server.auth.writing import write
from cra.server.serve import make_server
from cra.server.settings import ServiceSettings
from cra.storage.open import open_storage


def register(runtime: Any) -> None:
    """Register an executor that does nothing for every action."""
    runtime.register_executor("*", nothing, inline=True)


def main() -> None:
    """Serve what the first argument says, a JSON object, and print the key."""
    given = json.loads(sys.argv[1])
    settings = ServiceSettings(port=given["port"], storage=given["storage"], **given.get("settings", {}))
    storage = open_storage(settings.storage, max_sessions=1_000_000, max_events=100_000_000)
    with CRARuntime(RuntimeConfig(storage=storage.of_tenant("default"))) as runtime:
        request = issuing.KeyRequest(subject="bench", roles=("admin",))

        def make() -> tuple[str, issuing.Write]:
            part = storage.of_tenant("default")
            now_us = time.time_ns() // 1000
            _, made, change = issuing.create_key(part, request, maker=issuing.ANYTHING, actor="bench", now_us=now_us)
            return made.text, change

        key = write(runtime.administration, "bench", make)
    print(key, flush=True)
    app = create_app(settings, storage=storage, atlases=(loader.load(Path(given["atlas"])),), register=register)
    profile = os.environ.get("CRA_BENCH_PROFILE")
    if profile:
        import cProfile

        profiler = cProfile.Profile()
        profiler.enable()
    make_server(app, settings).run()
    if profile:
        profiler.disable()
        profiler.dump_stats(profile)


if __name__ == "__main__":
    main()
