"""All scenarios, in the order of `make faults`."""

from tests.faults.scenario import Scenario
from tests.faults.scenarios import crashes, disks, power

ALL: tuple[Scenario, ...] = (*crashes.scenarios.all, *power.scenarios.all, *disks.scenarios.all)
