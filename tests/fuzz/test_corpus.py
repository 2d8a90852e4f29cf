"""Every parser, with its corpus and with what Hypothesis makes of it: refused or accepted, quickly, and in one way."""

import gc
import time
import tracemalloc
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from exchange.errors import ExchangeError
from tests.fuzz.targets import BY_NAME, CORPUS, TARGETS, Target, check, seeds

#: Generous: an input of the corpus is small, and the machine may be busy.
MOST_CPU_S = 2.0
#: For each byte given, beside what a parser takes at all.
MOST_BYTES_EACH = 400
MOST_BYTES = 64 * 1024 * 1024

SEEDS = [(target, path) for target in TARGETS for path in seeds(target)]
#: Those that are several parsers, of which none takes what the others do.
_NOTHING_REAL = {"answers", "address"}


def ids(value: object) -> str:
    return value.name if isinstance(value, Target | Path) else str(value)


@pytest.mark.parametrize("target", TARGETS, ids=ids)
def test_every_parser_has_a_corpus_and_accepts_some_of_it(target: Target) -> None:
    found = [check(target, path.read_bytes()) for path in seeds(target)]
    assert found, f"{target.name} has no corpus: run python -m tests.fuzz.seeds"
    assert "accepted" in found or target.name in _NOTHING_REAL, found


def test_the_corpus_is_small_and_of_parsers_that_there_are() -> None:
    assert {path.name for path in CORPUS.iterdir()} <= BY_NAME.keys()
    assert sum(path.stat().st_size for path in CORPUS.rglob("*") if path.is_file()) < 2 * 1024 * 1024


@pytest.mark.parametrize(("target", "path"), SEEDS, ids=ids)
def test_what_is_in_the_corpus_costs_little_time_and_memory(target: Target, path: Path) -> None:
    data = path.read_bytes()
    check(target, data)
    gc.collect()
    started_s = time.thread_time()
    check(target, data)
    assert time.thread_time() - started_s < MOST_CPU_S
    tracemalloc.start()
    try:
        check(target, data)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < MOST_BYTES + MOST_BYTES_EACH * len(data)


# What Hypothesis makes of it


@st.composite
def bent(draw: st.DrawFn, whole: list[bytes]) -> bytes:
    """Bytes of a corpus, cut, doubled, joined and changed in places."""
    data = bytearray(draw(st.sampled_from(whole)))
    for _ in range(draw(st.integers(1, 6))):
        at = draw(st.integers(0, len(data)))
        match draw(st.sampled_from(("flip", "cut", "insert", "repeat", "join", "text"))):
            case "flip" if at < len(data):
                data[at] ^= 1 << draw(st.integers(0, 7))
            case "cut":
                del data[at : at + draw(st.integers(1, 64))]
            case "insert":
                data[at:at] = draw(st.binary(max_size=16))
            case "repeat":
                data[at:at] = data[at : at + draw(st.integers(1, 64))] * draw(st.integers(1, 20))
            case "join":
                data[at:] = draw(st.sampled_from(whole))[at:]
            case "text":
                word = draw(
                    st.sampled_from(("\0", "\n\n", "\ud800", "9" * 400, "[" * 400, "é", "—", '"', "null", "-1"))
                )
                data[at:at] = word.encode("utf-8", "surrogatepass")
            case _:
                pass
    return bytes(data)


#: Bytes that MessagePack reads, so that what is wrong is found further in.
_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.text(max_size=20) | st.binary(max_size=40),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=12,
)


@st.composite
def rebuilt(draw: st.DrawFn, whole: list[bytes]) -> bytes:
    """A corpus that is MessagePack, with some values exchanged for others."""
    found = msgspec.msgpack.decode(draw(st.sampled_from(whole)))

    def change(value: Any) -> Any:
        if draw(st.integers(0, 7)) == 0:
            return draw(_values)
        if isinstance(value, dict):
            kept = {key: change(inner) for key, inner in value.items() if draw(st.integers(0, 15))}
            return kept | (draw(st.dictionaries(st.text(max_size=8), _values, max_size=1)))
        if isinstance(value, list):
            return [change(inner) for inner in value for _ in range(draw(st.sampled_from((1, 1, 1, 1, 0, 2))))]
        return value

    return msgspec.msgpack.encode(change(found))


FEW = settings(max_examples=60, suppress_health_check=list(HealthCheck))


@pytest.mark.parametrize("target", TARGETS, ids=ids)
def test_nothing_that_is_made_of_the_corpus_leads_to_another_error(target: Target) -> None:
    whole = [data for path in seeds(target) if len(data := path.read_bytes()) < 30_000]

    @FEW
    @given(bent(whole) | st.binary(max_size=200))
    def run(data: bytes) -> None:
        check(target, data)

    run()


STRUCTURED = [target for target in TARGETS if target.name.endswith(("payload", "inside", "content"))] + [
    BY_NAME[name]
    for name in (
        *("card", "manifest", "receipt", "rotation", "revocation", "sightings", "registration", "registration-reply"),
        *("pairing-offer", "pairing-answer", "pairing-reveal", "rejoin-request", "ask", "rejoin-answer"),
    )
]


@pytest.mark.parametrize("target", STRUCTURED, ids=ids)
def test_nothing_that_is_well_formed_and_wrong_within_leads_to_another_error(target: Target) -> None:
    whole = [data for path in seeds(target) if len(data := path.read_bytes()) < 30_000]

    @FEW
    @given(rebuilt(whole))
    def run(data: bytes) -> None:
        check(target, data)

    run()


# The rules themselves can be broken


def _target(parse: Any) -> Target:
    return Target("made-up", parse)


def test_an_error_of_another_family_is_found() -> None:
    def parse(data: bytes) -> bytes | None:
        raise KeyError(data)

    with pytest.raises(KeyError):
        check(_target(parse), b"fictitious")


def test_an_error_that_repeats_what_was_given_is_found() -> None:
    def parse(data: bytes) -> bytes | None:
        raise ExchangeError(f"that is no {data.decode()}")

    with pytest.raises(AssertionError, match="repeats"):
        check(_target(parse), b"Jay Fictitious, 7 Nowhere Street")


def test_an_error_that_shows_another_one_is_found() -> None:
    def parse(data: bytes) -> bytes | None:
        try:
            raise KeyError(data)
        except KeyError:
            raise ExchangeError("that is not it")  # noqa: B904

    with pytest.raises(AssertionError, match="from another error"):
        check(_target(parse), b"fictitious")


def test_a_second_encoding_is_found() -> None:
    with pytest.raises(AssertionError, match="written otherwise"):
        check(_target(lambda data: data + b"\n"), b"fictitious")
