"""Errors as problem documents: every class has a status, and the document is RFC 9457's with a code and a hint."""

import importlib
import json
import pkgutil
from collections.abc import Iterator

import pytest

import exchange
from exchange.agency.errors import NodeRefused
from exchange.agency.errors import NotNow as AskedLater
from exchange.errors import ExchangeError
from exchange.handover.gate import Effect, Missing, Need
from exchange.node import errors
from exchange.node.errors import (
    AtLimit,
    ForkDetected,
    GateClosed,
    ItemRefused,
    NodeError,
    NotNow,
    ProofAwaited,
    RequestInvalid,
)
from exchange.node.problems import json_response, problem, problem_of, status_of
from exchange.schema.errors import Finding, FormInvalid
from exchange.store.errors import NotFound, StoreUnavailable


def every_error() -> Iterator[type[ExchangeError]]:
    for info in pkgutil.walk_packages(exchange.__path__, "exchange."):
        if info.name.endswith(".errors"):
            module = importlib.import_module(info.name)
            yield from (
                kind for kind in vars(module).values() if isinstance(kind, type) and issubclass(kind, ExchangeError)
            )


ERRORS = sorted(set(every_error()), key=lambda kind: (kind.__module__, kind.__name__))


def document(response: object) -> dict[str, object]:
    assert getattr(response, "content_type") == "application/problem+json"  # noqa: B009
    found = json.loads(getattr(response, "body"))  # noqa: B009
    assert isinstance(found, dict)
    return found


def make(kind: type[ExchangeError]) -> ExchangeError:
    if issubclass(kind, FormInvalid):
        return kind((Finding("error", "referral.to_area", "is not an area"),))
    if issubclass(kind, AtLimit):
        return kind("one line", 30)
    if issubclass(kind, ProofAwaited):
        return kind("one line", 7)
    if issubclass(kind, ForkDetected):
        return kind("one line", "a checkpoint", 0)
    if issubclass(kind, GateClosed):
        return kind([Missing(next(iter(Need)), next(iter(Effect)), "referral", "one line", "")])
    if issubclass(kind, NodeRefused):
        return kind("one line", "conflict", kind.hint)
    if issubclass(kind, AskedLater):
        return kind("one line", 7)
    return kind("item-code", "one line") if issubclass(kind, ItemRefused) else kind("one line")


@pytest.mark.parametrize("kind", ERRORS)
def test_every_error_is_a_problem_document_with_its_code(kind: type[ExchangeError]) -> None:
    error = make(kind)
    response = problem_of(error)
    found = document(response)
    assert 400 <= response.status <= 599
    assert found["status"] == response.status == status_of(error)
    assert found["code"] == kind.code
    assert found["hint"] == kind.hint
    assert found["title"] == found["message"] == str(error)


@pytest.mark.parametrize(("waits_s", "told"), [(0.0, "1"), (0.2, "1"), (30.0, "30"), (30.1, "31")])
def test_who_has_to_wait_is_told_for_how_many_whole_seconds(waits_s: float, told: str) -> None:
    assert problem_of(AtLimit("one line", waits_s)).headers["retry-after"] == told


@pytest.mark.parametrize("kind", ERRORS)
def test_a_code_is_a_word_that_scripts_can_rely_on(kind: type[ExchangeError]) -> None:
    assert kind.code.replace("-", "").isalpha()
    assert kind.code == kind.code.lower()


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (RequestInvalid("x"), 400),
        (errors.PeerUntrusted("x"), 403),
        (errors.FingerprintMismatch("x"), 403),
        (NotFound("x"), 404),
        (errors.PeerUnknown("x"), 404),
        (FormInvalid((Finding("error", "a", "b"),)), 422),
        (NodeError("x"), 500),
        (NotNow("x"), 503),
        (StoreUnavailable("x"), 503),
    ],
)
def test_the_status_says_whose_turn_it_is(error: ExchangeError, status: int) -> None:
    assert status_of(error) == status


def test_a_refused_form_lists_every_finding_with_its_path() -> None:
    findings = (Finding("error", "referral.to_area", "is not an area"), Finding("warning", "risk", "is old"))
    assert document(problem_of(FormInvalid(findings)))["findings"] == [
        {"severity": "error", "path": "referral.to_area", "message": "is not an area"},
        {"severity": "warning", "path": "risk", "message": "is old"},
    ]


def test_what_may_work_later_says_when() -> None:
    assert problem_of(NotNow("later")).headers["retry-after"] == "2"
    assert "retry-after" not in problem_of(RequestInvalid("never")).headers


def test_more_members_may_stand_beside_the_standard_ones() -> None:
    assert document(problem(409, "conflict", "twice", "", id="m"))["id"] == "m"


def test_a_value_is_answered_as_json() -> None:
    response = json_response({"id": "m"}, 201)
    assert (response.status, response.content_type, response.body) == (201, "application/json", b'{"id":"m"}')
