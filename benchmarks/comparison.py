"""What peers do with the same form on the same machine: `python -m benchmarks.comparison`.

Each peer runs in a process and an environment of its own (`make .venv/compare`), since its packages are no part of the
exchange. None does the same work as the exchange; each line says what it does and what it leaves out.
"""

import statistics
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import msgspec

from benchmarks.forms import eight_sections

_ROOT = Path(__file__).parents[1]
#: The interpreter of the environment that has the peers' packages.
PYTHON = _ROOT / ".venv" / "comparison" / "bin" / "python"
_TIMEOUT_S = 300


_Found = TypeVar("_Found", bound=msgspec.Struct)


class ComparisonError(Exception):
    """A peer could not be measured; the message says why and what to do."""


@dataclass(frozen=True)
class Compared:
    """One peer: what it does and does not do, in a line, and what was measured.

    CPU and times are for each handover. `server_cpu_ms` is the part of `cpu_ms` that a server used.
    """

    name: str
    does: str
    per_s: float | None
    cpu_ms: float | None
    p50_ms: float | None
    p99_ms: float | None
    server_cpu_ms: float | None = None


class As2Work(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What one process of two did."""

    count: int
    wall_s: float
    cpu_s: float
    handovers_ms: list[float]


class As2Seen(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What one handover has shown."""

    payload_sha256: str
    cipher: str
    digest: str
    mdn: str
    mdn_digest: str


class As2(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What `benchmarks.as2` prints."""

    bits: int
    seen: As2Seen
    works: list[As2Work]
    primitives_ms: float


class Mesh(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What `benchmarks.mesh` prints."""

    messages: int
    per_s: float
    server_cpu_ms: float
    client_cpu_ms: float
    p50_ms: float
    p99_ms: float
    payload_sha256: str
    inbox_before_acknowledgement: int
    inbox_afterwards: int


def measure(form: bytes, seconds: float = 3.0, messages: int = 1000, timed: int = 200) -> list[Compared]:
    """Measure every peer with `form`, one after the other.

    Raises:
        ComparisonError: a peer's environment is absent, or its work failed.
    """
    found = [run_as2(form, bits, seconds) for bits in (2048, 3072)]
    return [line for as2 in found for line in _as2_lines(as2)] + [_mesh_line(run_mesh(form, messages, timed))]


def run_as2(form: bytes, bits: int, seconds: float) -> As2:
    """Measure `pyas2lib` with RSA keys of `bits`.

    Raises:
        ComparisonError: its environment is absent, or its work failed.
    """
    return _run("benchmarks.as2", form, As2, ("--bits", bits, "--seconds", seconds))


def run_mesh(form: bytes, messages: int, timed: int) -> Mesh:
    """Measure `mesh-sandbox`.

    Raises:
        ComparisonError: its environment is absent, or its work failed.
    """
    return _run("benchmarks.mesh", form, Mesh, ("--messages", messages, "--timed", timed))


def _run(module: str, form: bytes, kind: type[_Found], options: Sequence[object]) -> _Found:
    if not PYTHON.exists():
        raise ComparisonError("the environment of the peers is absent: make it by `make .venv/compare`")
    command = [str(PYTHON), "-m", module, *map(str, options)]
    try:
        done = subprocess.run(command, input=form, capture_output=True, cwd=_ROOT, timeout=_TIMEOUT_S, check=True)
    except subprocess.CalledProcessError as error:
        raise ComparisonError(f"{module} failed:\n{error.stderr.decode(errors='replace')[-2000:]}") from None
    except subprocess.TimeoutExpired:
        raise ComparisonError(f"{module} took more than {_TIMEOUT_S} seconds") from None
    return msgspec.json.decode(done.stdout, type=kind)


def _as2_lines(as2: As2) -> list[Compared]:
    handovers_ms = sorted(one for work in as2.works for one in work.handovers_ms)
    each = "RSA signature and encryption, signed receipt verified; "
    return [
        Compared(
            name=f"AS2 by pyas2lib, RSA-{as2.bits}",
            does=f"{each}in memory: no network, disk or duplicate check; {_cores(len(as2.works))}",
            per_s=sum(work.count / work.wall_s for work in as2.works),
            cpu_ms=sum(work.cpu_s for work in as2.works) * 1000 / sum(work.count for work in as2.works),
            p50_ms=statistics.median(handovers_ms),
            p99_ms=handovers_ms[int(len(handovers_ms) * 0.99)],
        ),
        Compared(
            name=f"AS2, its cryptography alone, RSA-{as2.bits}",
            does="the same signatures, RSA and AES in OpenSSL with nothing between them: a floor, no exchange",
            per_s=None,
            cpu_ms=as2.primitives_ms,
            p50_ms=None,
            p99_ms=None,
        ),
    ]


def _mesh_line(mesh: Mesh) -> Compared:
    return Compared(
        name="MESH sandbox and client",
        does="send, fetch, acknowledge by way of a server that can read it; files unsynced, nothing signed, no TLS",
        per_s=mesh.per_s,
        cpu_ms=mesh.server_cpu_ms + mesh.client_cpu_ms,
        p50_ms=mesh.p50_ms,
        p99_ms=mesh.p99_ms,
        server_cpu_ms=mesh.server_cpu_ms,
    )


def _cores(count: int) -> str:
    return "a process on each of two cores" if count == 2 else "one process on one core"


def main() -> None:
    """Measure the peers, and print what was found."""
    for compared in measure(eight_sections()):
        print(compared.name)
        print(f"  {compared.does}")
        for label, value, unit in (
            ("per second", compared.per_s, ""),
            ("CPU for each", compared.cpu_ms, " ms"),
            ("  of the server", compared.server_cpu_ms, " ms"),
            ("p50", compared.p50_ms, " ms"),
            ("p99", compared.p99_ms, " ms"),
        ):
            if value is not None:
                print(f"    {label:18} {value:8.2f}{unit}")


if __name__ == "__main__":
    main()
