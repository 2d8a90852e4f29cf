"""Fuzz every parser, each for its share of the time: `make fuzz MINUTES=10`.

A parser runs in a process of its own under atheris, which follows which lines an input reaches. What it finds that
reaches new lines is dropped when it ends; what breaks a rule is kept in `fuzz-found/`, and is printed with its error.
Put such a file into the corpus of its target, with a plain test beside the parser's others.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
FOUND = ROOT / "fuzz-found"
#: Bytes that one input may have, seconds that it may take, and mebibytes that the process may have.
LIMITS = ("-max_len=65536", "-timeout=10", "-rss_limit_mb=2048", "-malloc_limit_mb=1024")


def fuzz(name: str, corpus: str, seconds: int) -> None:
    """In a process of its own: fuzz one parser. Does not return."""
    import atheris

    with atheris.instrument_imports(include=["exchange"]):
        from tests.fuzz.targets import BY_NAME, check, seeds
    target = BY_NAME[name]

    def one(data: bytes) -> None:
        check(target, data)

    FOUND.mkdir(exist_ok=True)
    places = [corpus, str(seeds(target)[0].parent)]
    atheris.Setup(
        [sys.argv[0], *places, *LIMITS, f"-max_total_time={seconds}", f"-artifact_prefix={FOUND}/{name}-"], one
    )
    atheris.Fuzz()


def main() -> int:
    """Fuzz what was asked for, one after the other; 1 where a rule was broken."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.run", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10, help="for all parsers together")
    parser.add_argument("--only", action="append", help="a parser; may be given more than once")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        name, corpus, seconds = options.child
        fuzz(name, corpus, int(seconds))
    from tests.fuzz.targets import TARGETS

    wanted = options.only or [target.name for target in TARGETS]
    # Those that face strangers get twice the time.
    weights = {target.name: 2 if target.strangers else 1 for target in TARGETS if target.name in wanted}
    broken = []
    for name, weight in weights.items():
        seconds = max(2, round(options.minutes * 60 * weight / sum(weights.values())))
        with tempfile.TemporaryDirectory(prefix="exchange-fuzz-") as corpus:
            command = [sys.executable, "-m", "tests.fuzz.run", "--child", name, corpus, str(seconds)]
            done = subprocess.run(
                command, cwd=ROOT, capture_output=True, text=True, errors="replace", timeout=seconds + 300, check=False
            )
        runs = [line for line in done.stderr.splitlines() if line.startswith("Done ")]
        print(f"{name:20} {runs[-1] if runs else 'stopped'}", flush=True)  # noqa: T201
        if done.returncode:
            broken.append(name)
            print(done.stdout[-3000:] + done.stderr[-3000:], flush=True)  # noqa: T201
    if broken:
        print(f"a rule was broken by: {', '.join(broken)}; the bytes are in {FOUND}")  # noqa: T201
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
