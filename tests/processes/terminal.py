"""A person at a terminal: the program runs on a pseudo-terminal of its own, and is typed to."""

import fcntl
import os
import re
import select
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.processes.harness import DEADLINE_S


def _at_a_terminal() -> None:
    """As a person's shell starts a program: the terminal is its own, and Ctrl-C reaches it though it did not us."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class Terminal:
    """The program on a terminal."""

    def __init__(self, *arguments: object, config: Path) -> None:
        self._master, slave = os.openpty()
        environment = {name: value for name, value in os.environ.items() if not name.startswith("EXCHANGE_")}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "exchange.cli.main", *map(str, arguments)],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            preexec_fn=_at_a_terminal,
            env=environment | {"EXCHANGE_CONFIG": str(config)},
        )
        os.close(slave)
        self.shown = ""

    def sees(self, text: str) -> str:
        """Wait until the screen has shown a text, after what it had shown when it was last looked for."""
        deadline = time.monotonic() + DEADLINE_S
        while (found := re.search(text, self.shown)) is None:
            ready = self._is_ready(max(0, deadline - time.monotonic()))
            assert ready, f"the screen never showed {text!r}:\n{self.shown}"
            try:
                more = os.read(self._master, 4096)
            except OSError:
                more = b""
            assert more, f"the program ended before it showed {text!r}:\n{self.shown}"
            self.shown += more.decode()
        seen, self.shown = self.shown[: found.end()], self.shown[found.end() :]
        return seen

    def _is_ready(self, within_s: float) -> bool:
        """Whether there is something to read; `select` knows no descriptor above 1023."""
        poll = select.poll()
        poll.register(self._master, select.POLLIN)
        return bool(poll.poll(within_s * 1000))

    def types(self, line: str) -> None:
        """Type a line."""
        os.write(self._master, line.encode() + b"\n")

    def interrupt(self) -> int:
        """Press Ctrl-C; its exit code."""
        os.write(self._master, b"\x03")
        return self.ends()

    def ends(self) -> int:
        """Wait for the end; the exit code. What is left on the screen is then in `shown`."""
        while self._is_ready(DEADLINE_S):
            try:
                more = os.read(self._master, 4096)
            except OSError:
                break
            if not more:
                break
            self.shown += more.decode()
        return self.process.wait(DEADLINE_S)

    def close(self) -> None:
        """Kill what is left."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(DEADLINE_S)
        os.close(self._master)


@contextmanager
def terminal(*arguments: object, config: Path) -> Iterator[Terminal]:
    """Run the program on a terminal, for a while."""
    made = Terminal(*arguments, config=config)
    try:
        yield made
    finally:
        made.close()
