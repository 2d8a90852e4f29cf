"""A file that is replaced as a whole: after a crash or a power cut it holds the old content or the new."""

import os
from pathlib import Path

from exchange import crash_points


def replace_file(path: Path, data: bytes) -> None:
    """Put `data` in place of a file, or make it; on return it is on the disk.

    Raises:
        OSError: it could not be written; the old one stands.
    """
    temporary = path.with_name(path.name + ".new")
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    crash_points.reached("file.beside")
    temporary.replace(path)
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
    crash_points.reached("file.in-place")
