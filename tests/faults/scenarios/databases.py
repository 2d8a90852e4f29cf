"""A PostgreSQL server that goes away and comes back."""

import contextlib
import os
import signal
import subprocess
import time
from typing import Any, Final

from tests import databases
from tests.faults.scenario import Scenarios
from tests.faults.world import Load, World
from tests.processes.harness import until

scenarios: Final = Scenarios("database", "postgresql")


@scenarios.add("restarted", "PostgreSQL server crashes under load and recovers", "no commit lost, all arrives once")
def _restarted(world: World) -> None:
    server = databases.running_server()
    # PostgreSQL loses some steps of sequences in a database that was copied after the last checkpoint, as ours were.
    databases.rows(str(databases.server), "CHECKPOINT")
    world.start()
    with Load(world):
        for _ in range(3):
            time.sleep(world.chance.uniform(0.3, 1))
            # At once, without writing anything more: what comes next is a recovery.
            pid = server.get_pid()
            os.kill(pid, signal.SIGQUIT)
            until("the server has gone", lambda pid=pid: not _lives(pid))
            world.counts["times"] += 1
            time.sleep(world.chance.uniform(0, 2))
            until("the server has recovered", lambda: _started(server))
    world.check()


def _started(server: Any) -> bool:
    # On a busy machine its recovery takes longer than this waits.
    with contextlib.suppress(subprocess.SubprocessError, AssertionError):
        server.ensure_postgres_running()
        return True
    return False


def _lives(pid: int) -> bool:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, 0)
        return True
    return False
