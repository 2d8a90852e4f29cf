"""Where the CPU of a handover goes, step by step, at the sending and at the receiving node.

It is sampled: `py-spy` looks two hundred times a second, without stopping it, at what each thread that runs is doing
while forms are sent at full speed. A sample belongs to the step of the innermost function that `_STEPS` names; the CPU
that the kernel counted for a thread is shared out by the thread's samples. What nothing names is the event loop and
HTTP. A step of less than a percent may be chance.
"""

import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.load import Load
from benchmarks.nodes import Setting, Side, has_sent_all, two_boroughs, until
from benchmarks.processes import thread_cpu_s
from benchmarks.report import Found, Table
from benchmarks.throughput import request, warm_up

_PER_S: Final = 200
_REST: Final = "event loop and HTTP"

#: Step, file, and functions where it is not all of the file.
_STEPS: Final = (
    ("check the form", "exchange/schema/form.py", ()),
    ("check the form", "exchange/schema/quality.py", ()),
    ("split the form", "exchange/schema/split.py", ()),
    ("seal sections", "exchange/crypto/section.py", ("seal_section",)),
    ("open sections", "exchange/crypto/section.py", ("open_section",)),
    ("check content", "exchange/node/inbound.py", ("_check_content",)),
    ("seal the parcel", "exchange/crypto/parcel.py", ("seal_parcel",)),
    ("open the parcel", "exchange/crypto/parcel.py", ("open_parcel",)),
    ("envelopes", "exchange/crypto/envelope.py", ()),
    ("keys at rest", "exchange/crypto/rest.py", ()),
    ("keys at rest", "exchange/node/compose.py", ("keep_secrets", "recall_secrets")),
    ("make the manifest", "exchange/node/compose.py", ()),
    ("decode and encode MessagePack", "exchange/schema/wire.py", ()),
    ("sign checkpoints", "exchange/crypto/signing.py", ()),
    ("verify proofs", "exchange/crypto/proof.py", ("verify_statement", "parse_proof")),
    ("verify proofs", "exchange/crypto/checkpoint.py", ()),
    ("continuity", "exchange/node/continuity.py", ()),
    ("mirror leaf hashes", "exchange/node/mirroring.py", ()),
    ("mirror leaf hashes", "exchange/store/mirror.py", ()),
    ("prove statements", "exchange/crypto/proof.py", ()),
    ("prove statements", "exchange/store/log.py", ("proven_at", "consistency_between", "_read_nodes")),
    ("append to the log", "exchange/store/log.py", ()),
    ("claim and end deliveries", "exchange/store/outbox.py", ()),
    ("claim and end deliveries", "exchange/node/delivery.py", ()),
    ("store messages and receipts", "exchange/store/messages.py", ()),
    ("send, other", "exchange/node/outbound.py", ()),
    ("send, other", "exchange/node/sending.py", ()),
    ("receive, other", "exchange/node/inbound.py", ()),
    ("admission", "exchange/node/admission.py", ()),
)
#: For what is in none of them.
_OTHERWISE: Final = (("store, other", "exchange/store/", ()),)
#: Where these themselves run, with nothing of Python within, SQLite begins or commits.
_COMMITS: Final = ("exchange/store/sqlite.py", ("_run_batch",))
#: Where these run with nothing within, their thread has been woken and waits for its turn: that takes no CPU.
_WAITS: Final = (
    ("exchange/store/sqlite.py", ("gather",)),
    ("concurrent/futures/thread.py", ("_worker",)),
    ("threading.py", ("wait",)),
)
_THREAD: Final = re.compile(r"thread \((?P<id>\d+)\)")
_FRAME: Final = re.compile(r"(?P<function>\S+) \((?P<file>[^:)]+)(?::\d+)?\)")


@dataclass(frozen=True)
class Steps:
    """CPU of each step, in milliseconds for a handover."""

    sender: dict[str, float]
    receiver: dict[str, float]


def measure(count: int, load: Load, root: Path) -> Steps | str:
    """Sample both nodes while `count` forms are sent; a text where that cannot be done here, and why."""
    program = shutil.which("py-spy", path=f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin")
    if program is None:
        return "py-spy is not installed"
    with (
        tempfile.TemporaryDirectory(prefix="exchange-bench-", dir=root) as directory,
        two_boroughs(Path(directory), Setting(), None) as sides,
    ):
        hackney, enfield = sides
        warm_up(hackney, enfield, load)
        before_s = [_of_threads(side) for side in sides]
        files = [Path(directory) / f"{side.borough.slug}.samples" for side in sides]
        sampling = [_sample(program, side, file) for side, file in zip(sides, files, strict=True)]
        load.closed(hackney.sockets, [request(hackney, enfield)], count)
        until("the outbox is empty", lambda: has_sent_all(hackney))
        after_s = [_of_threads(side) for side in sides]
        for process in sampling:
            process.send_signal(signal.SIGINT)
        codes = [process.wait(60) for process in sampling]
        if any(codes) or not all(file.exists() for file in files):
            return "py-spy may not look into the nodes: run this as root"
        found = []
        for file, before, after in zip(files, before_s, after_s, strict=True):
            spent_ms = {thread: (cpu_s - before.get(thread, 0.0)) * 1000 / count for thread, cpu_s in after.items()}
            found.append(_shared_out(file.read_text().splitlines(), spent_ms))
        return Steps(*found)


def _sample(program: str, side: Side, file: Path) -> "subprocess.Popen[bytes]":
    what = ("record", "--pid", str(side.pids[0]), "--rate", str(_PER_S), "--nonblocking", "--threads")
    where = ("--format", "raw", "--output", str(file))
    return subprocess.Popen([program, *what, *where], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _of_threads(side: Side) -> dict[int, float]:
    """Seconds of CPU of each thread."""
    threads = Path(f"/proc/{side.pids[0]}/task").iterdir()
    return {int(thread.name): thread_cpu_s(side.pids[0], int(thread.name)) for thread in threads}


def _shared_out(lines: Iterable[str], spent_ms: Mapping[int, float]) -> dict[str, float]:
    """CPU by step, from stacks as `py-spy` writes them: thread, frames from the outermost, how often they were seen."""
    seen: dict[int, Counter[str]] = {}
    for line in lines:
        stack, _, times = line.rpartition(" ")
        thread, *frames = stack.split(";")
        match, step = _THREAD.match(thread), step_of(frames)
        if match is not None and step is not None:
            seen.setdefault(int(match["id"]), Counter())[step] += int(times)
    steps: Counter[str] = Counter()
    for thread_id, ms in spent_ms.items():
        found = seen.get(thread_id) or Counter({_REST: 1})
        for step, times_seen in found.items():
            steps[step] += ms * times_seen / found.total()  # type: ignore[assignment]
    return dict(steps)


def step_of(frames: list[str]) -> str | None:
    """The step that a stack belongs to, its outermost frame first; None where it only waits."""
    found = [match for frame in reversed(frames) if (match := _FRAME.match(frame))]
    if found and any(_fits(found[0], *wait) for wait in _WAITS):
        return None
    if found and _fits(found[0], *_COMMITS):
        return "begin and commit"
    for steps in (_STEPS, _OTHERWISE):
        for match in found:
            for step, file, functions in steps:
                if _fits(match, file, functions):
                    return step
    return _REST


def _fits(match: "re.Match[str]", file: str, functions: tuple[str, ...]) -> bool:
    # A function's name has those of what it stands in before it: `Inbound._store.<locals>.<listcomp>`.
    return file in match["file"] and (not functions or not set(functions).isdisjoint(match["function"].split(".")))


def report(found: Steps | str) -> Found:
    """The table of both nodes."""
    title, columns = "CPU of a handover by step", ("step", "sender, ms", "receiver, ms", "both, ms", "share, %")
    if isinstance(found, str):
        return Found([Table(title, f"Not measured: {found}.", columns, [])])
    both = {step: found.sender.get(step, 0.0) + found.receiver.get(step, 0.0) for step in found.sender | found.receiver}
    total = sum(both.values())
    rows = [
        (step, found.sender.get(step, 0.0), found.receiver.get(step, 0.0), value, 100 * value / total)
        for step, value in sorted(both.items(), key=lambda item: -item[1])
    ]
    rows.append(("sum", sum(found.sender.values()), sum(found.receiver.values()), total, 100.0))
    note = (
        f"Sampled {_PER_S} times a second while forms were sent at full speed; what the kernel counted for each thread "
        "is shared out by its samples."
    )
    figures = {f"steps.{step}": value for step, value in both.items()}
    return Found([Table(title, note, columns, rows)], figures)
