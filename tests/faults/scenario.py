"""A scenario: one kind of fault, what is done to inject it, and what held if it ends without an exception."""

from collections.abc import Callable
from dataclasses import dataclass

from tests.faults.world import World


@dataclass(frozen=True)
class Scenario:
    """A named fault."""

    name: str
    injected: str
    held: str
    run: Callable[[World], None]
    #: Whether it mounts file systems or makes namespaces.
    needs_root: bool = False
    #: The one kind of store that it is about; None where it is about either.
    store: str | None = None


class Scenarios:
    """Scenarios of one file, in the order in which they stand."""

    def __init__(self, group: str, store: str | None = None) -> None:
        self._group = group
        self._store = store
        self.all: list[Scenario] = []

    def add(
        self, name: str, injected: str, held: str, *, needs_root: bool = False
    ) -> Callable[[Callable[[World], None]], Callable[[World], None]]:
        """Register a function as a scenario."""

        def register(run: Callable[[World], None]) -> Callable[[World], None]:
            self.all.append(Scenario(f"{self._group}/{name}", injected, held, run, needs_root, self._store))
            return run

        return register
