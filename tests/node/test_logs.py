"""Logs: only keys of the list pass, whatever is handed to them."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from exchange.node import logs
from exchange.node.logs import ALLOWED, MOST_A_MINUTE, OTHERS_MAKE, FewOfEach, configure_logs, only_allowed

CONTENT = "Jay Fictitious, 7 Nowhere Street"


@pytest.fixture(autouse=True)
def _restore() -> Iterator[None]:
    yield
    structlog.reset_defaults()


def written(capsys: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


@given(st.dictionaries(st.sampled_from(sorted(ALLOWED)) | st.text(), st.text()))
def test_only_keys_of_the_list_pass(event: dict[str, str]) -> None:
    passed = only_allowed(None, "info", dict(event))
    assert passed == {key: value for key, value in event.items() if key in ALLOWED}


@pytest.mark.parametrize("key", ["content", "name", "body", "form", "section", "url", "exception", "exc_info", "stack"])
def test_what_could_hold_content_is_not_on_the_list(key: str) -> None:
    assert key not in ALLOWED


def test_an_unknown_key_is_dropped_from_the_line(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs()
    structlog.get_logger().warning("item refused", peer="exchange.hackney.example", subject=CONTENT)
    (line,) = written(capsys)
    assert line.pop("timestamp")
    assert line == {"event": "item refused", "level": "warning", "peer": "exchange.hackney.example"}


def test_a_bound_key_that_is_unknown_is_dropped_too(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs()
    structlog.get_logger().bind(subject=CONTENT).info("hello")
    assert CONTENT not in json.dumps(written(capsys))


def test_of_lines_that_others_can_make_few_are_written_and_the_rest_is_counted() -> None:
    seconds = 0.0
    few = FewOfEach(lambda: seconds)

    def write(event: str = "item refused", peer: str = "exchange.camden.example") -> dict[str, object] | None:
        try:
            return dict(few(None, "warning", {"event": event, "peer": peer}))
        except structlog.DropEvent:
            return None

    written = [write() for _ in range(MOST_A_MINUTE + 40)]
    assert sum(line is not None for line in written) == MOST_A_MINUTE
    assert write(peer="exchange.barnet.example") is not None, "another peer's lines are not lost"
    assert all(write("held") is not None for _ in range(2 * MOST_A_MINUTE)), "what others cannot make is always written"
    seconds = 61.0
    assert write() == {"event": "item refused", "peer": "exchange.camden.example", "left_out": 40}
    assert write() == {"event": "item refused", "peer": "exchange.camden.example"}


def test_every_line_that_is_counted_is_one_that_the_node_writes() -> None:
    code = "".join(path.read_text() for path in Path(logs.__file__).parent.glob("*.py") if path.name != "logs.py")
    for event in OTHERS_MAKE:
        assert f'"{event}"' in code


def test_an_exception_prints_no_content(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs()
    try:
        raise ValueError(CONTENT)
    except ValueError as error:
        structlog.get_logger().exception("failed", code="internal")
        structlog.get_logger().error("failed", exc_info=True)
        structlog.get_logger().error("failed", exc_info=error, stack_info=True)
    lines = capsys.readouterr().err
    assert len(lines.splitlines()) == 3
    assert CONTENT not in lines
    assert "Traceback" not in lines


@given(st.text())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_text_makes_a_second_line(capsys: pytest.CaptureFixture[str], text: str) -> None:
    configure_logs()
    structlog.get_logger().info("refused", reason=text)
    written_lines = capsys.readouterr().err
    assert written_lines.count("\n") == 1
    assert json.loads(written_lines)["reason"] == text


@pytest.mark.parametrize("value", [b"bytes", {"a": 1}, None, 1.5, object, float("nan")])
def test_no_value_stops_a_line(capsys: pytest.CaptureFixture[str], value: object) -> None:
    configure_logs()
    structlog.get_logger().info("refused", reason=value)
    assert written(capsys)[0]["event"] == "refused"


@pytest.mark.parametrize(("level", "count"), [("debug", 3), ("info", 2), ("error", 1)])
def test_the_level_says_how_much_is_written(capsys: pytest.CaptureFixture[str], level: str, count: int) -> None:
    configure_logs(level)
    log = structlog.get_logger()
    log.debug("one")
    log.info("two")
    log.error("three")
    assert len(written(capsys)) == count


def test_a_line_says_when_and_how_grave(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs()
    structlog.get_logger().error("alarm")
    (line,) = written(capsys)
    assert line["level"] == "error"
    assert str(line["timestamp"]).endswith("Z")
