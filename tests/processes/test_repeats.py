"""The command line sends once, whatever becomes of the answer."""

import re
import shutil
import socket
import threading
from pathlib import Path

from tests.processes.conftest import Town
from tests.processes.harness import ENFIELD, HACKNEY, Borough, example

FORM = "case-study-j"


def test_a_send_whose_answer_is_lost_says_how_to_send_once(town: Town, tmp_path: Path) -> None:
    hackney = town.borough("hackney", HACKNEY)
    form = tmp_path / "form.json"
    form.write_bytes(example(FORM))
    asked = []
    with socket.socket(socket.AF_UNIX) as listener:
        # A node that is killed after it has read the request, and before it answers.
        place = Path(shutil.copytree(hackney.directory, tmp_path / "n"))
        listener.bind(str(place / "exchange.sock"))
        listener.listen()

        def read_and_stop() -> None:
            connection, _ = listener.accept()
            with connection:
                asked.append(connection.recv(65_536).decode(errors="replace"))

        reader = threading.Thread(target=read_and_stop)
        reader.start()
        lost = hackney.cli("send", form, "--to", ENFIELD, "--config", place / "exchange.toml")
        reader.join()
    assert lost.code == 75
    assert "may have been sent" in lost.one_line_error()
    named = re.search(r"--id ([0-9a-f-]{36})", lost.stderr)
    assert named is not None
    assert f"idempotency-key: {named[1]}" in asked[0]


def test_the_same_id_again_sends_nothing_more(boroughs: tuple[Borough, Borough], tmp_path: Path) -> None:
    hackney, _ = boroughs
    form = tmp_path / "form.json"
    form.write_bytes(example(FORM))
    chosen = "0b7f4a52-9c1e-4d0e-8f64-2f7f3c1d9a10"
    first = hackney.ask("send", form, "--to", ENFIELD, "--id", chosen)
    again = hackney.ask("send", form, "--to", ENFIELD, "--id", chosen)
    assert (first["id"], first["repeated"], again["repeated"]) == (chosen, False, True)
    assert [item["id"] for item in hackney.ask("outbox")["items"]] == [chosen]
