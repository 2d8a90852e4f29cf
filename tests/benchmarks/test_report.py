"""What the benchmarks print, and how they judge and share out what they found."""

import xml.etree.ElementTree as ET

import pytest

from benchmarks.load import percentile
from benchmarks.plot import plot
from benchmarks.report import Table, as_markdown, as_text, figure
from benchmarks.steps import step_of
from benchmarks.targets import TARGETS, judge

_TABLE = Table("Title", "Note.", ("what", "how many"), [("one", 1.234), ("two", None)])


@pytest.mark.parametrize(
    ("value", "text"),
    [(1234.5, "1,234"), (12.34, "12.3"), (1.234, "1.23"), (0.0123, "0.01"), (1000, "1,000"), (float("nan"), "-")],
)
def test_a_figure_has_the_digits_that_count(value: float, text: str) -> None:
    assert figure(value) == text


def test_a_table_is_printed_with_its_figures_under_one_another() -> None:
    assert as_text(_TABLE).splitlines() == [
        "Title",
        "Note.",
        "  what  how many",
        "  one       1.23",
        "  two          -",
    ]


def test_a_table_is_markdown_too() -> None:
    lines = as_markdown(_TABLE).splitlines()
    assert lines[0] == "### Title"
    assert lines[-3:] == ["| --- | ---: |", "| one | 1.23 |", "| two | - |"]


def test_a_target_is_met_or_not_or_was_not_measured() -> None:
    figures = {"rate.sqlite": 1200.0, "half.p99.sqlite": 51.0}
    verdicts = {row[0]: row[3] for row in judge(figures).rows}
    assert verdicts["handovers of eight sections, node to node"] == "met"
    assert verdicts["p99 at half of full speed"] == "not met"
    assert verdicts["CPU of a handover, in sums of its primitives"] == "not measured"


def test_the_ratio_to_pyas2lib_is_of_the_same_run() -> None:
    figures = {"rate.sqlite": 1000.0, "comparison.per_s.pyas2lib": 50.0}
    row = next(row for row in judge(figures).rows if "pyas2lib" in str(row[0]))
    assert row[2:] == (20.0, "met")


def test_every_target_has_a_bound() -> None:
    assert all((target.at_least is None) != (target.at_most is None) for target in TARGETS)


@pytest.mark.parametrize(
    ("frames", "step"),
    [
        (
            ["Thread.run (threading.py:982)", "SqliteStore._run_batch (exchange/store/sqlite.py:236)"],
            "begin and commit",
        ),
        (
            [
                "SqliteStore._run_batch (exchange/store/sqlite.py:230)",
                "add_message (exchange/store/messages.py:205)",
                "SqliteTransaction.execute (exchange/store/sqlite.py:56)",
            ],
            "store messages and receipts",
        ),
        (["_derive (exchange/crypto/section.py:57)"], "event loop and HTTP"),
        (
            [
                "compose_message (exchange/node/compose.py:91)",
                "seal_section (exchange/crypto/section.py:71)",
                "_derive (exchange/crypto/section.py:57)",
            ],
            "seal sections",
        ),
        (["Runner.run (asyncio/runners.py:118)"], "event loop and HTTP"),
        (
            ["SqliteStore._write_loop (exchange/store/sqlite.py:208)", "_Queue.gather (exchange/store/sqlite.py:107)"],
            None,
        ),
    ],
)
def test_a_stack_belongs_to_the_innermost_step_that_is_named(frames: list[str], step: str | None) -> None:
    assert step_of(frames) == step


def test_a_percentile_is_a_value_that_was_seen() -> None:
    values = [float(number) for number in range(100)]
    assert (percentile(values, 0.5), percentile(values, 0.99), percentile([7.0], 0.99)) == (50.0, 99.0, 7.0)


def test_a_plot_is_well_formed_and_names_every_bar() -> None:
    root = ET.fromstring(plot({"rate.sqlite": 1200.0, "growth.cpu.1000": 1.5, "growth.cpu.1000000": 1.6}))
    texts = [element.text for element in root.iter() if element.text]
    assert {"sqlite", "1,000", "1,000,000", "1,200 a second"} <= set(texts)
