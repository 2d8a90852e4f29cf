"""All scenarios, in the order of `make faults`."""

from tests.faults.scenario import Scenario
from tests.faults.scenarios import crashes, databases, disks, limits, network, orders, power

ALL: tuple[Scenario, ...] = (
    *crashes.scenarios.all,
    *orders.scenarios.all,
    *power.scenarios.all,
    *disks.scenarios.all,
    *databases.scenarios.all,
    *network.scenarios.all,
    *limits.hostile.all,
    *limits.scarce.all,
    *limits.clocks.all,
)
