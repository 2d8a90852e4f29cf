"""All scenarios, in the order of `make faults`."""

from tests.faults.scenario import Scenario
from tests.faults.scenarios import crashes, power

ALL: tuple[Scenario, ...] = (*crashes.scenarios.all, *power.scenarios.all)
