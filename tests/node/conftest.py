"""Nodes for the tests of this directory."""

import io
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from exchange.node.services import Services
from tests.node.handmade import Borough, Desk
from tests.node.pair import ENFIELD, HACKNEY, Clock, Node, Pair, log_lines, opened, running, running_pair


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    """What the nodes of the test log."""
    with log_lines() as written:
        yield written


@pytest.fixture
async def services(tmp_path: Path, clock: Clock, lines: io.StringIO) -> AsyncIterator[Services]:
    """A store and what goes with it; nothing runs."""
    async with opened(tmp_path / "hackney", clock) as made:
        yield made


@pytest.fixture
async def enfield(tmp_path: Path, clock: Clock, lines: io.StringIO) -> AsyncIterator[Node]:
    """A node that runs by itself."""
    async with running(tmp_path / "enfield", ENFIELD, "exchange.enfield.example", clock) as node:
        yield node


@pytest.fixture
async def hackney(tmp_path: Path, clock: Clock, lines: io.StringIO) -> AsyncIterator[Node]:
    """Another node that runs by itself."""
    async with running(tmp_path / "hackney", HACKNEY, "exchange.hackney.example", clock) as node:
        yield node


@pytest.fixture
async def pair(tmp_path: Path, clock: Clock, lines: io.StringIO) -> AsyncIterator[Pair]:
    """Two nodes that have verified each other."""
    async with running_pair(tmp_path, clock) as nodes:
        yield nodes


@pytest.fixture
def camden(clock: Clock) -> Borough:
    """A borough made by hand, which nobody has registered yet."""
    return Borough("exchange.camden.example", "E09000007", clock)


@pytest.fixture
async def desk(camden: Borough) -> AsyncIterator[Desk]:
    """The borough made by hand, listening."""
    answers = Desk(camden)
    async with camden.listening(answers.answer):
        yield answers
