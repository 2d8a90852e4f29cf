"""Where the CPU of a handover goes, step by step, at the sending and at the receiving node.

It is sampled: `py-spy` looks a hundred times a second at what each thread that runs is doing while forms are sent at
full speed. A sample belongs to the step of the innermost function that `_STEPS` names, and the CPU that the kernel
counted is shared out by samples. What none of them names is the event loop and HTTP. A step of less than a percent may
be chance.
"""

import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.load import Load
from benchmarks.nodes import Setting, Side, has_sent_all, two_boroughs, until
from benchmarks.report import Found, Table
from benchmarks.throughput import request, warm_up

_PER_S: Final = 100
_REST: Final = "event loop and HTTP"

#: Step, file, and functions where it is not all of the file. The first that fits a frame counts.
_STEPS: Final = (
    ("check the form", "exchange/schema/form.py", ()),
    ("check the form", "exchange/schema/quality.py", ()),
    ("check the form", "exchange/schema/sections.py", ()),
    ("split the form", "exchange/schema/split.py", ()),
    ("split the form", "exchange/schema/catalogue.py", ()),
    ("seal sections", "exchange/crypto/section.py", ("seal_section",)),
    ("open sections", "exchange/crypto/section.py", ("open_section",)),
    ("sections, shared", "exchange/crypto/section.py", ()),
    ("sections, shared", "exchange/crypto/padding.py", ()),
    ("seal the parcel", "exchange/crypto/parcel.py", ("seal_parcel",)),
    ("open the parcel", "exchange/crypto/parcel.py", ("open_parcel",)),
    ("seal and open envelopes", "exchange/crypto/envelope.py", ()),
    ("keys at rest", "exchange/crypto/rest.py", ()),
    ("keys at rest", "exchange/node/compose.py", ("keep_secrets", "recall_secrets")),
    ("write the manifest", "exchange/node/compose.py", ()),
    ("check content", "exchange/node/inbound.py", ("_check_content",)),
    ("sign checkpoints", "exchange/crypto/signing.py", ()),
    ("verify proofs", "exchange/crypto/proof.py", ("verify_statement", "parse_proof")),
    ("verify proofs", "exchange/crypto/checkpoint.py", ()),
    ("verify proofs", "exchange/crypto/note.py", ()),
    ("continuity", "exchange/node/continuity.py", ()),
    ("mirror leaf hashes", "exchange/node/mirroring.py", ()),
    ("mirror leaf hashes", "exchange/store/mirror.py", ()),
    ("prove statements", "exchange/crypto/proof.py", ()),
    ("prove statements", "exchange/store/log.py", ("proven_at", "consistency_between", "_read_nodes")),
    ("append to the log", "exchange/store/log.py", ()),
    ("append to the log", "exchange/crypto/merkle.py", ()),
    ("claim and end deliveries", "exchange/store/outbox.py", ()),
    ("claim and end deliveries", "exchange/node/delivery.py", ()),
    ("store messages", "exchange/store/messages.py", ()),
    ("store receipts", "exchange/node/inbound.py", ("take_receipt",)),
    ("store, other", "exchange/store/", ()),
    ("receive, other", "exchange/node/inbound.py", ()),
    ("collect envelopes", "exchange/node/outbound.py", ()),
    ("send, other", "exchange/node/sending.py", ()),
    ("local API", "exchange/node/local_api.py", ()),
)
#: Where these themselves run, with nothing of Python within, it is SQLite that begins or commits.
_COMMITS: Final = ("exchange/store/sqlite.py", ("_run_batch",))
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
        before_s = [side.cpu_s() for side in sides]
        files = [Path(directory) / f"{side.borough.slug}.samples" for side in sides]
        sampling = [_sample(program, side, file) for side, file in zip(sides, files, strict=True)]
        load.closed(hackney.sockets, [request(hackney, enfield)], count)
        until("the outbox is empty", lambda: has_sent_all(hackney))
        spent_ms = [(side.cpu_s() - before) * 1000 / count for side, before in zip(sides, before_s, strict=True)]
        for process in sampling:
            process.send_signal(signal.SIGINT)
            if process.wait(60) or not all(file.exists() for file in files):
                return "py-spy may not look into the nodes: run this as root"
        sender, receiver = (
            _shared_out(file.read_text().splitlines(), spent) for file, spent in zip(files, spent_ms, strict=True)
        )
        return Steps(sender, receiver)


def _sample(program: str, side: Side, file: Path) -> "subprocess.Popen[bytes]":
    what = ("record", "--pid", str(side.pids[0]), "--rate", str(_PER_S), "--format", "raw", "--output", str(file))
    return subprocess.Popen([program, *what], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _shared_out(lines: Iterable[str], spent_ms: float) -> dict[str, float]:
    """CPU by step, from stacks as `py-spy` writes them: frames from the outermost, then how often they were seen."""
    seen: Counter[str] = Counter()
    for line in lines:
        stack, _, times = line.rpartition(" ")
        seen[step_of(stack.split(";"))] += int(times)
    total = seen.total()
    return {step: spent_ms * count / total for step, count in seen.most_common()}


def step_of(frames: list[str]) -> str:
    """The step that a stack belongs to, its outermost frame first."""
    found = [match for frame in reversed(frames) if (match := _FRAME.match(frame))]
    if found and _fits(found[0], *_COMMITS):
        return "begin and commit"
    for match in found:
        for step, file, functions in _STEPS:
            if _fits(match, file, functions):
                return step
    return _REST


def _fits(match: "re.Match[str]", file: str, functions: tuple[str, ...]) -> bool:
    return file in match["file"] and (not functions or match["function"] in functions)


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
        f"Sampled {_PER_S} times a second while forms were sent at full speed; the CPU that the kernel counted is "
        "shared out by samples. Sampling itself slows the nodes a little."
    )
    figures = {f"steps.{step}": value for step, value in both.items()}
    return Found([Table(title, note, columns, rows)], figures)
