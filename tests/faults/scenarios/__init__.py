"""All scenarios, in the order of `make faults`."""

from tests.faults.scenario import Scenario
from tests.faults.scenarios import crashes

ALL: tuple[Scenario, ...] = (*crashes.scenarios.all,)
