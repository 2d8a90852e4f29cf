"""All scenarios, in the order of `make faults`."""

from tests.faults.scenario import Scenario
from tests.faults.scenarios import crashes, disks, limits, network, power

ALL: tuple[Scenario, ...] = (
    *crashes.scenarios.all,
    *power.scenarios.all,
    *disks.scenarios.all,
    *network.scenarios.all,
    *limits.hostile.all,
    *limits.scarce.all,
    *limits.clocks.all,
)
