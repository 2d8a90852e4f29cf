"""Builds the shim, has a node run behind it, and tells it which calls are to fail."""

import errno
import struct
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.processes.harness import Borough

_SOURCE: Final = Path(__file__).with_name("shim.c")
_NUMBERS: Final = struct.Struct("=4i")


def build(directory: Path) -> Path:
    """Compile it."""
    library = directory / "shim.so"
    if not library.exists():
        compiler = ["gcc", "-O2", "-Wall", "-Werror", "-shared", "-fPIC", "-o", str(library), str(_SOURCE)]
        subprocess.run([*compiler, "-pthread"], check=True)
    return library


@dataclass
class Shim:
    """The shim before one node."""

    control: Path
    recording: Path

    @classmethod
    def before(cls, borough: Borough, place: Path, *, record: bool = False) -> "Shim":
        """Have a node start behind the shim; `place` is where its files are, outside of the node's directory."""
        made = cls(place / "control", place / "recording")
        made.control.write_bytes(_NUMBERS.pack(0, 0, 0, 0))
        borough.environment |= {
            "LD_PRELOAD": str(build(place)),
            "FAULTS_ROOT": str(borough.directory),
            "FAULTS_CONTROL": str(made.control),
        }
        if record:
            borough.environment["FAULTS_RECORDING"] = str(made.recording)
        return made

    @staticmethod
    def away(borough: Borough) -> None:
        """Have it start without."""
        for name in ("LD_PRELOAD", "FAULTS_ROOT", "FAULTS_CONTROL", "FAULTS_RECORDING"):
            borough.environment.pop(name, None)

    def fail(self, *, sync: int = 0, write: int = 0, read: int = 0, lie: bool = False) -> None:
        """Which errors calls give from now on; or whether a sync says that it is done, and does nothing."""
        with self.control.open("r+b") as file:
            file.write(_NUMBERS.pack(sync, write, read, lie))

    def mend(self) -> None:
        """Have everything work again."""
        self.fail()


ERRORS: Final[Mapping[str, int]] = {"EIO": errno.EIO, "ENOSPC": errno.ENOSPC, "EROFS": errno.EROFS}
