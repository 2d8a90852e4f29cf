"""A store that the benchmarks grow is one that the node could have written."""

from pathlib import Path

import pytest

from benchmarks import filling
from benchmarks.forms import eight_sections
from benchmarks.load import load, post_form
from benchmarks.nodes import has_sent_all, running, until
from exchange.cli.boroughs import ENFIELD, HACKNEY, register

_COPIES = 100


@pytest.mark.slow
@pytest.mark.sqlite
def test_a_grown_store_passes_its_check_and_its_node_goes_on(tmp_path: Path) -> None:
    config = tmp_path / HACKNEY.slug / "exchange.toml"
    there, back = (
        post_form(to.area, eight_sections(of.area, to.area)) for of, to in ((HACKNEY, ENFIELD), (ENFIELD, HACKNEY))
    )
    with load() as sender:
        with running(tmp_path, HACKNEY) as hackney, running(tmp_path, ENFIELD) as enfield:
            register(hackney.processes[0], enfield.processes[0])
            for side, form in ((hackney, there), (enfield, back)):
                sender.closed(side.sockets, [form], 1)
                until("it is sent", lambda side=side: has_sent_all(side))  # type: ignore[misc]
        before = filling.check(config)
        filling.fill(config, _COPIES, waiting=True)
        assert filling.check(config) == before + _COPIES
        with running(tmp_path, HACKNEY) as hackney, running(tmp_path, ENFIELD) as enfield:
            assert len(hackney.ask("GET", "/v1/inbox")["items"]) == 1 + _COPIES // 2
            for side, form in ((hackney, there), (enfield, back)):
                assert sender.one_by_one(side.sockets[0], form, 1)
            for side in (hackney, enfield):
                assert side.ask("GET", "/v1/alarms") == {"items": []}
