"""Each answer that the description of the APIs promises is one that a node gives, and has the shape that it says."""

import asyncio
import base64
import io
import json
import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest

from exchange.agency.keys import AgencyKeys
from exchange.crypto.keystore import Argon2Parameters, lock_keystore
from exchange.crypto.names import Origin
from exchange.crypto.secret import Secret
from exchange.node.openapi import (
    AGENCIES,
    AGENCIES_OPEN,
    AGENCY_COMMON,
    LOCAL,
    LOCAL_COMMON,
    PEER_COMMON,
    PEERS,
    PROBLEM,
    Codes,
    Operation,
)
from exchange.node.peer_client import ENVELOPE_TYPE
from exchange.node.revocation import prepare_revocation, publish_revocation
from exchange.schema.agency_keys import file_bytes, read_challenge
from exchange.schema.registration import PAIRING_TYPE, REGISTRATION_TYPE, invitation_link
from exchange.schema.rejoining import REJOIN_TYPE
from exchange.store.attachments import AttachmentRow, add_attachment
from exchange.store.endpoints import endpoint_of, keep_endpoint
from exchange.store.messages import message_by_id
from exchange.store.transaction import Transaction
from tests.directory.office import Office, served
from tests.node import fetcher
from tests.node.agency import Agency
from tests.node.handmade import Borough, Desk
from tests.node.pair import ENFIELD, HACKNEY, Clock, Node, card_file, form, running
from tests.node.test_bodies import envelope, raw
from tests.node.test_gate import agreed, person, urgent
from tests.node.test_invitations import invite, sealed_registration
from tests.node.test_pairings import NOWHERE
from tests.node.test_pairings import start as start_pairing
from tests.node.test_revocation import revocation

TESTS = Path(__file__).parents[1]
UUID = "0b7f4a52-9c1e-4d0e-8f64-2f7f3c1d9a10"

#: Answers that other tests show, and a word of theirs: it takes a machine, a time or a peer of its own to get them.
ELSEWHERE = {
    ("post", "/v1/keys/passphrase", 200, ""): ("processes/test_passphrase", '"passwd"'),
    ("post", "/v1/keys/passphrase", 403, "wrong-passphrase"): ("processes/test_passphrase", "sealed_key"),
    ("post", "/v1/envelopes", 408, "too-slow"): ("node/test_bodies", "too-slow"),
    ("post", "/v1/revocations", 408, "too-slow"): ("node/test_bodies", "too-slow"),
    ("post", "/v1/envelopes", 429, "peer-limit"): ("node/test_limits", "peer-limit"),
    ("post", "/v1/envelopes", 429, "peer-quota"): ("node/test_limits", "peer-quota"),
    ("post", "/v1/envelopes", 503, "proof-awaited"): ("node/test_continuity", "ProofAwaited"),
    ("post", "/v1/pairings/{id}/confirm", 403, "peer-untrusted"): ("node/test_pairings", "peer-untrusted"),
    ("post", "/v1/directory/refresh", 403, "directory-refused"): ("node/test_directory_attacks", "directory-refused"),
    ("post", "/v1/pairings", 200, ""): ("node/test_pairings", "show_words"),
    ("post", "/v1/pairings/reveal", 200, ""): ("node/test_pairings", "show_words"),
    ("post", "/v1/registrations", 408, "too-slow"): ("node/test_invitations", "impatient"),
    ("post", "/v1/pairings", 408, "too-slow"): ("node/test_invitations", "impatient"),
    ("post", "/v1/pairings/reveal", 408, "too-slow"): ("node/test_invitations", "impatient"),
    ("post", "/v1/rejoin", 200, ""): ("node/test_rejoining", "forks_at"),
    ("post", "/v1/rejoin", 408, "too-slow"): ("node/test_bodies", "too-slow"),
    ("post", "/v1/agencies", 403, "handshake-refused"): ("node/test_endpoints", "handshake-refused"),
    ("*", "local", 403, "not-for-browsers"): ("node/test_browsers", "not-for-browsers"),
    ("get", "/v1/agency/attachments/{id}/{section}/{place}", 200, ""): (
        "node/test_agency_attachments",
        "listed",
    ),
    ("*", "local", 503, "rejoining"): ("processes/test_backups", "rejoining"),
    ("*", "local", 400, "bad-request"): ("node/test_local_api", "bad-request"),
    ("*", "local", 408, "too-slow"): ("node/test_local_api", "too-slow"),
    ("*", "local", 503, "too-busy"): ("node/test_local_api", "bounded"),
    ("*", "agencies", 429, "too-many-requests"): ("node/test_agency_listener", "too-many-requests"),
    ("*", "peers", 429, "too-many-requests"): ("node/test_callers", "too-many-requests"),
}
ELSEWHERE |= {
    ("post", f"/v1/sections/{{id}}/{verb}", status, code): (f"node/{file}", word)
    for verb in ("own", "query", "redirect")
    for status, code, file, word in (
        (200, "", "test_holders", verb),
        (400, "request-invalid", "test_holders", "request-invalid"),
        (403, "agency-signs", "test_signed_words", "agency-signs"),
        (404, "not-found", "test_holders", "not-found"),
        (409, "not-said-there", "test_holders", "not-said-there"),
        (409, "words-too-many", "test_holders", "words-too-many"),
        (422, "acknowledgement-invalid", "test_signed_words", "acknowledgement-invalid"),
        (422, "words-invalid", "test_signed_words", "words-invalid"),
        (503, "no-current-key", "test_holders", "no-current-key"),
    )
}
ELSEWHERE |= {
    (method, path, status, code): ("node/test_orders", word)
    for method, path, status, code, word in (
        ("post", "/v1/messages/{id}/recall", 200, "", "repeated"),
        ("post", "/v1/messages/{id}/recall", 201, "", "recall"),
        ("post", "/v1/messages/{id}/recall", 400, "request-invalid", "test_what_cannot_be_ordered"),
        ("post", "/v1/messages/{id}/recall", 404, "not-found", "not-found"),
        ("post", "/v1/messages/{id}/recall", 409, "not-sent-yet", "not-sent-yet"),
        ("post", "/v1/messages/{id}/recall", 409, "orders-too-many", "orders-too-many"),
        ("post", "/v1/messages/{id}/erase", 200, "", "repeated"),
        ("post", "/v1/messages/{id}/erase", 201, "", "erase"),
        ("post", "/v1/messages/{id}/erase", 400, "request-invalid", "test_what_cannot_be_ordered"),
        ("post", "/v1/messages/{id}/erase", 404, "not-found", "not-found"),
        ("post", "/v1/messages/{id}/erase", 409, "not-sent-yet", "not-sent-yet"),
        ("post", "/v1/messages/{id}/erase", 409, "orders-too-many", "orders-too-many"),
        ("get", "/v1/orders", 200, "", "unconfirmed=true"),
        ("get", "/v1/orders", 400, "request-invalid", "unconfirmed=perhaps"),
        ("post", "/v1/sections/{id}/confirm", 200, "", "confirm"),
        ("post", "/v1/sections/{id}/confirm", 400, "request-invalid", "request-invalid"),
        ("post", "/v1/sections/{id}/confirm", 404, "not-found", "not-found"),
    )
}
ELSEWHERE |= {
    ("post", "/v1/sections/{id}/links", 201, ""): ("node/test_links", "speaks_as_the_borough"),
    ("post", "/v1/sections/{id}/links", 400, "request-invalid"): ("node/test_links", "request-invalid"),
    ("post", "/v1/sections/{id}/links", 403, "agency-signs"): ("node/test_links", "agency-signs"),
    ("post", "/v1/sections/{id}/links", 404, "not-found"): ("node/test_links", "not-found"),
    ("post", "/v1/sections/{id}/links", 409, "not-said-there"): ("node/test_links", "not-said-there"),
    ("delete", "/v1/links/{id}", 200, ""): ("node/test_links", "was_withdrawn"),
}
ELSEWHERE |= {("get", "/v1/questions", 200, ""): ("node/test_holders", "/v1/questions")}
#: PostgreSQL alone refuses the value; the disk is watched where the store is a file.
OF_ONE_STORE = {"value-refused", "store-full"}


@dataclass
class Seen:
    """Asks a node, holds each answer to the description, and notes which there were."""

    node: Node
    operations: tuple[Operation, ...]
    common: dict[int, Codes]
    answers: set[tuple[str, str, int, str]] = field(default_factory=set)
    #: Where it listens, if at none of the usual places.
    base: str = ""

    async def ask(
        self,
        expected: int,
        method: str,
        path: str,
        body: Any = None,
        *,
        data: bytes | io.BytesIO | None = None,
        headers: dict[str, str] | None = None,
        code: str = "",
    ) -> Any:
        """Ask; the answer must be of the status and code that are expected, and described."""
        content = data if data is not None else json.dumps(body).encode() if body is not None else None
        if self.base:
            asked = self.node.http.request(method, f"{self.base}{path}", data=content, headers=headers)
        elif self.operations is LOCAL:
            asked = self.node.local_http.request(method, f"http://local{path}", data=content, headers=headers)
        else:
            asked = self.node.http.request(method, f"{self.node.url}{path}", data=content, headers=headers)
        async with asked as answer:
            text = await answer.read()
            operation = self.described(method, path.partition("?")[0])
            assert answer.status == expected, (method, path, answer.status, text)
            if answer.status < 300:
                self.hold(operation.answers[answer.status], answer.content_type, text)
                found = ""
            else:
                assert answer.content_type == PROBLEM
                document = json.loads(text)
                found = document["code"]
                assert found == (code or found), document
                codes = {*self.common.get(expected, ()), *operation.problems.get(expected, ())}
                assert found in codes, f"{method} {path} answered {expected} {found}, which is not described"
                assert {"title", "status", "code", "message", "hint"} <= document.keys()
                if expected in (429, 503):
                    assert int(answer.headers["retry-after"]) >= 1
            self.answers.add((method.lower(), operation.path, expected, found))
            return json.loads(text) if answer.content_type == "application/json" else None

    def described(self, method: str, path: str) -> Operation:
        """The operation that serves a path."""
        fitting = [
            one
            for one in self.operations
            if one.method == method.lower() and re.fullmatch(re.sub(r"\{[a-z]+\}", "[^?]+", one.path), path)
        ]
        return max(fitting, key=lambda one: len(one.path.replace("{", "")))

    def hold(self, described: Any, content_type: str, text: bytes) -> None:
        """Hold an answer to its shape."""
        if isinstance(described, str):
            assert content_type == described
            return
        assert content_type == "application/json"
        kinds = described if isinstance(described, tuple) else (described,)
        errors = []
        for kind in kinds:
            try:
                msgspec.json.decode(text, type=kind, strict=True)
            except msgspec.ValidationError as error:
                errors.append(str(error))
        assert len(errors) < len(kinds), errors


def missing(seen: set[tuple[str, str, int, str]], operations: tuple[Operation, ...]) -> set[tuple[str, str, int, str]]:
    """What is described and was not seen."""
    described = {(one.method, one.path, status, "") for one in operations for status in one.answers}
    described |= {
        (one.method, one.path, status, code)
        for one in operations
        for status, codes in one.problems.items()
        for code in codes
        if code not in OF_ONE_STORE
    }
    return described - seen - ELSEWHERE.keys()


@asynccontextmanager
async def asked(path: Path, clock: Clock, area: str, origin: str, more: str = "") -> AsyncIterator[Seen]:
    async with running(path / origin, area, origin, clock, more) as node:
        cost = Argon2Parameters(1, 8192)
        file = lock_keystore({"store": bytes(32)}, Secret(b"fictitious"), cost)
        node.services.configuration.keystore_path.write_bytes(file)
        yield Seen(node, LOCAL, LOCAL_COMMON)


async def test_every_answer_of_the_local_api_that_is_described_is_given(
    tmp_path: Path, clock: Clock, desk: Desk, camden: Borough
) -> None:
    scan = f"[scan]\ncommand = {json.dumps(['/bin/sh', '-c', '! grep -q EICAR'])}\n"
    async with (
        Agency("housing").listening() as agency,
        asked(tmp_path, clock, HACKNEY, "exchange.hackney.example", scan) as seen,
    ):
        await about_the_node(seen)
        await about_peers(seen, camden)
        await about_agencies(seen, agency)
        await about_messages(seen, camden)
        await about_handovers(seen, tmp_path)
        await about_routing(seen)
        await about_attachments(seen, camden)
        async with running(tmp_path / "harrow", "E09000015", "exchange.harrow.example", clock) as harrow:
            await about_invitations(seen, harrow)
            await about_pairings(seen, harrow)
        await about_a_directory(seen, tmp_path, clock)
        await about_keys(seen, camden)
        answers = seen.answers
    two = "[trust]\ntwo_people = true\n"
    async with asked(tmp_path, clock, ENFIELD, "exchange.enfield.example", two) as seen:
        given = {"card": card_file(camden.card()), "fingerprint": camden.fingerprint}
        await seen.ask(201, "POST", "/v1/peers", given)
        await seen.ask(403, "POST", "/v1/peers", given, code="peer-untrusted")
        place = f"/v1/peers/verify/{camden.origin}"
        await seen.ask(403, "POST", place, {"fingerprint": camden.fingerprint}, code="peer-untrusted")
        answers |= seen.answers
    gate = '[gate]\nagreements = "required"\nsecond_approver = ["associates"]\n'
    async with asked(tmp_path, clock, "E09000015", "exchange.harrow.example", gate) as seen:
        await seen.node.know(camden)
        await about_the_gate(seen, camden.area)
        answers |= seen.answers
    assert missing(answers, LOCAL) == set()


async def about_the_node(seen: Seen) -> None:
    for path in (
        "health",
        "openapi.json",
        "openapi-peers.json",
        "openapi-agencies.json",
        "card",
        "alarms",
        "inbox",
        "outbox",
        "held",
    ):
        await seen.ask(200, "GET", f"/v1/{path}")
    await seen.ask(200, "GET", "/v1/rejoin")
    await seen.ask(400, "POST", "/v1/rejoin", {"go_on": True}, code="request-invalid")
    await seen.ask(201, "POST", "/v1/tokens", {"name": "case system", "expires_in_days": 30})
    await seen.ask(400, "POST", "/v1/tokens", {"name": 7}, code="request-invalid")


async def about_peers(seen: Seen, camden: Borough) -> None:
    await seen.ask(200, "GET", "/v1/peers")
    given = {"card": card_file(camden.card())}
    await seen.ask(403, "POST", "/v1/peers", given | {"fingerprint": "0" * 64}, code="fingerprint-mismatch")
    await seen.ask(400, "POST", "/v1/peers", {"card": "none"}, code="request-invalid")
    await seen.ask(400, "POST", "/v1/peers", given | {"fingerprint": "none"}, code="name-invalid")
    await seen.ask(201, "POST", "/v1/peers", given)
    camden.shown = len(camden.statements)
    for path in ("", "number/", "explain/"):
        await seen.ask(200, "GET", f"/v1/peers/{path}{camden.origin}")
        await seen.ask(404, "GET", f"/v1/peers/{path}exchange.nowhere.example", code="not-found")
    place, nowhere = f"/v1/peers/verify/{camden.origin}", "/v1/peers/verify/exchange.nowhere.example"
    await seen.ask(403, "POST", place, {"fingerprint": "0" * 64}, code="fingerprint-mismatch")
    await seen.ask(400, "POST", place, {}, code="request-invalid")
    await seen.ask(400, "POST", place, {"fingerprint": "none"}, code="name-invalid")
    await seen.ask(404, "POST", nowhere, {"fingerprint": "0" * 64}, code="not-found")
    await seen.ask(200, "POST", place, {"fingerprint": camden.fingerprint})
    await seen.ask(200, "POST", f"/v1/peers/suspend/{camden.origin}")
    await seen.ask(404, "POST", "/v1/peers/suspend/exchange.nowhere.example", code="not-found")
    await seen.ask(404, "DELETE", "/v1/peers/exchange.nowhere.example", code="not-found")
    await seen.ask(200, "POST", place, {"fingerprint": camden.fingerprint})
    barnet = Borough("exchange.barnet.example", "E09000003", camden._now_ms)
    await seen.node.know(barnet)  # which does not listen: what is sent to it waits
    await seen.node.send(barnet.area)
    await seen.ask(409, "DELETE", f"/v1/peers/{barnet.origin}", code="already-there")
    brent = Borough("exchange.brent.example", "E09000005", camden._now_ms)
    await seen.node.know(brent, verified=False)
    await seen.ask(400, "POST", f"/v1/peers/suspend/{brent.origin}", code="request-invalid")
    await seen.ask(200, "DELETE", f"/v1/peers/{brent.origin}")
    await seen.ask(200, "GET", f"/v1/peers/{camden.origin}")
    await seen.ask(200, "GET", "/v1/peers")


async def about_invitations(seen: Seen, harrow: Node) -> None:
    made = await seen.ask(201, "POST", "/v1/invitations", {})
    await seen.ask(400, "POST", "/v1/invitations", {"expires_in_hours": 0}, code="request-invalid")
    await seen.ask(200, "GET", "/v1/invitations")
    await seen.ask(200, "DELETE", f"/v1/invitations/{made['id']}")
    await seen.ask(404, "DELETE", f"/v1/invitations/{made['id']}", code="not-found")
    link, given = await invite(harrow)
    place = "/v1/invitations/accept"
    await seen.ask(400, "POST", place, {}, code="request-invalid")
    await seen.ask(422, "POST", place, {"invitation": "none"}, code="invitation-invalid")
    for change, status, code in (
        ({"fingerprint": "0" * 64}, 403, "fingerprint-mismatch"),
        ({"id": "0" * 32}, 403, "unacceptable"),
        ({"url": NOWHERE}, 503, "try-later"),
    ):
        other = invitation_link(msgspec.structs.replace(given, **change))
        await seen.ask(status, "POST", place, {"invitation": other}, code=code)
    await seen.ask(201, "POST", place, {"invitation": link})
    await seen.ask(200, "POST", f"/v1/peers/suspend/{harrow.origin}")
    await seen.ask(403, "POST", place, {"invitation": link}, code="peer-untrusted")


async def about_pairings(seen: Seen, harrow: Node) -> None:
    await seen.ask(400, "POST", "/v1/pairings", {}, code="request-invalid")
    await seen.ask(503, "POST", "/v1/pairings", {"url": NOWHERE}, code="try-later")
    for same in (False, True):
        place = f"/v1/pairings/{(await seen.ask(201, 'POST', '/v1/pairings', {'url': harrow.url}))['id']}"
        other = await start_pairing(harrow, seen.node)
        assert (await seen.ask(200, "GET", f"{place}?timeout_s=30"))["words"]
        await seen.ask(409, "POST", "/v1/pairings", {"url": harrow.url}, code="already-there")
        await seen.ask(400, "POST", f"{place}/confirm", {}, code="request-invalid")
        if same:
            await seen.ask(200, "POST", f"{place}/confirm", {"same": True})
        else:
            await seen.ask(403, "POST", f"{place}/confirm", {"same": False}, code="fingerprint-mismatch")
        assert (await harrow.local("DELETE", f"/v1/pairings/{other['id']}"))[0] == 200
    await seen.ask(200, "GET", "/v1/pairings")
    await seen.ask(400, "GET", f"{place}?timeout_s=soon", code="request-invalid")
    await seen.ask(200, "DELETE", place)
    for method, path, body in (("GET", "", None), ("DELETE", "", None), ("POST", "/confirm", {"same": True})):
        await seen.ask(404, method, f"/v1/pairings/none{path}", body, code="not-found")
    link, _ = await invite(harrow)
    await publish_revocation(harrow.services, await prepare_revocation(harrow.services))
    await seen.ask(403, "POST", "/v1/pairings", {"url": harrow.url}, code="identity-revoked")
    await seen.ask(403, "POST", "/v1/invitations/accept", {"invitation": link}, code="identity-revoked")


async def about_a_directory(seen: Seen, path: Path, clock: Clock) -> None:
    office, stranger = Office(path / "office", clock), Office(path / "stranger", clock)
    for one in (office, stranger):
        one.release(await seen.node.proven_card())
    for method, place in (("GET", ""), ("DELETE", ""), ("POST", "/refresh")):
        await seen.ask(404, method, f"/v1/directory{place}", code="not-found")
    async with served(office) as web:
        wanted = {"url": web.url, "root": json.loads(office.root())}
        await seen.ask(400, "POST", "/v1/directory", {}, code="request-invalid")
        other = wanted | {"root": json.loads(stranger.root())}
        await seen.ask(403, "POST", "/v1/directory", other, code="directory-refused")
        await seen.ask(503, "POST", "/v1/directory", wanted | {"url": NOWHERE}, code="try-later")
        await seen.ask(201, "POST", "/v1/directory", wanted)
        await seen.ask(409, "POST", "/v1/directory", wanted, code="already-there")
        await seen.ask(200, "POST", "/v1/directory/refresh")
    await seen.ask(503, "POST", "/v1/directory/refresh", code="try-later")
    await seen.ask(200, "GET", "/v1/directory")
    await seen.ask(200, "GET", "/v1/peers")
    await seen.ask(200, "DELETE", "/v1/directory")


async def about_agencies_keys(seen: Seen, agency: Agency, place: str) -> None:
    keys = AgencyKeys.generate(Origin("housing.hackney.example"))
    key = json.loads(file_bytes(keys.public()))
    await seen.ask(400, "POST", f"{place}/key", {"key": key | {"key": "AAAA"}}, code="request-invalid")
    await seen.ask(404, "POST", "/v1/agencies/agency-none/key", {"key": key}, code="not-found")
    await seen.ask(404, "GET", f"{place}/challenge", code="not-found")
    claimed = await seen.ask(201, "POST", f"{place}/key", {"key": key})
    challenge = await seen.ask(200, "GET", f"{place}/challenge")
    assert claimed["challenge"] == challenge
    answer = json.loads(file_bytes(keys.answer(read_challenge(json.dumps(challenge).encode()), 0)))
    wrong = answer | {"answer": key["key"][:43] + "="}
    await seen.ask(400, "POST", f"{place}/prove", {"answer": wrong}, code="request-invalid")
    asked = await seen.ask(200, "POST", f"{place}/prove", {})
    assert (asked["ok"], asked["error"]) == (False, "agency housing answered 204 and no proof")
    await seen.ask(200, "POST", f"{place}/prove", {"answer": answer})
    await seen.ask(404, "POST", f"{place}/prove", {"answer": answer}, code="not-found")


async def about_agencies(seen: Seen, agency: Agency) -> None:
    wanted = {"kind": "housing", "url": agency.url, "networks": ["127.0.0.0/8"]}
    added = await seen.ask(201, "POST", "/v1/agencies", wanted)
    agency.secret = added["secret"]
    agency._registered.set()
    await seen.ask(409, "POST", "/v1/agencies", wanted, code="already-there")
    await seen.ask(400, "POST", "/v1/agencies", wanted | {"kind": "weather"}, code="request-invalid")
    await seen.ask(200, "GET", "/v1/agencies")
    await seen.ask(200, "POST", f"/v1/agencies/{added['id']}/test")
    await seen.ask(404, "POST", "/v1/agencies/agency-none/test", code="not-found")
    await seen.ask(200, "GET", f"/v1/sections/{UUID}/housing/links")
    await seen.ask(404, "GET", "/v1/sections/none/links", code="not-found")
    await seen.ask(404, "DELETE", "/v1/links/none", code="not-found")
    sample = await seen.ask(200, "GET", f"/v1/agencies/{agency.kind}/selftest")
    given = {"headers": f"webhook-id: {sample['id']}", "body": ""}
    await seen.ask(200, "POST", f"/v1/agencies/{added['id']}/selftest", given)
    await seen.ask(400, "POST", f"/v1/agencies/{added['id']}/selftest", {"headers": ""}, code="request-invalid")
    await seen.ask(404, "GET", "/v1/agencies/agency-none/selftest", code="not-found")
    await seen.ask(404, "POST", "/v1/agencies/agency-none/selftest", given, code="not-found")
    fetching = await seen.ask(201, "POST", "/v1/agencies", {"kind": "dwp", "pull": True})
    await seen.ask(400, "POST", f"/v1/agencies/{fetching['id']}/test", code="request-invalid")
    await seen.ask(400, "POST", f"/v1/agencies/{fetching['id']}/secret", {}, code="request-invalid")
    await about_agencies_keys(seen, agency, f"/v1/agencies/{added['id']}")
    here = f"/v1/agencies/{added['id']}"
    await seen.ask(200, "GET", here)
    await seen.ask(200, "POST", f"{here}/pause", {"reason": "moving"})
    await seen.ask(400, "POST", f"{here}/pause", {"reason": 5}, code="request-invalid")
    await seen.ask(200, "POST", f"{here}/resume")
    await seen.ask(200, "POST", f"{here}/enable")
    await seen.node.services.store.write(lambda tx: _disabled(tx, added["id"]))
    await seen.ask(400, "POST", f"{here}/resume", code="request-invalid")
    await seen.ask(200, "POST", f"{here}/enable")
    await seen.ask(200, "POST", f"{here}/pause")
    await seen.ask(400, "POST", f"{here}/enable", code="request-invalid")
    await seen.ask(200, "POST", f"{here}/resume")
    await seen.ask(200, "POST", f"{here}/settings", {"timeout_s": 5})
    await seen.ask(400, "POST", f"{here}/settings", {"timeout_s": 0}, code="request-invalid")
    rotated = await seen.ask(200, "POST", f"{here}/secret", {})
    await seen.ask(409, "POST", f"{here}/secret", {}, code="already-there")
    await seen.ask(400, "POST", f"{here}/secret", {"overlap_hours": -1}, code="request-invalid")
    await seen.ask(200, "POST", f"{here}/secret/confirm", {"secret_id": rotated["secret_id"]})
    await seen.ask(400, "POST", f"{here}/secret/confirm", {"secret_id": "x"}, code="request-invalid")
    await seen.ask(200, "POST", f"{here}/replay", {"since": "2026-11-23T16:00:00Z"})
    await seen.ask(400, "POST", f"{here}/replay", {}, code="request-invalid")
    nowhere = "/v1/agencies/agency-none"
    await seen.ask(404, "GET", nowhere, code="not-found")
    token = await seen.ask(201, "POST", f"{here}/tokens", {"days": 30})
    await seen.ask(400, "POST", f"{here}/tokens", {"days": 0}, code="request-invalid")
    await seen.ask(200, "GET", f"{here}/tokens")
    await seen.ask(200, "DELETE", f"{here}/tokens/{token['id']}")
    await seen.ask(404, "DELETE", f"{here}/tokens/{token['id']}", code="not-found")
    await seen.ask(404, "GET", f"{nowhere}/tokens", code="not-found")
    await seen.ask(404, "POST", f"{nowhere}/tokens", {}, code="not-found")
    for verb, body in {
        "pause": {},
        "resume": None,
        "enable": None,
        "settings": {},
        "secret": {},
        "secret/confirm": {"secret_id": rotated["secret_id"]},
        "replay": {"since": "2026-11-23T16:00:00Z"},
    }.items():
        await seen.ask(404, "POST", f"{nowhere}/{verb}", body, code="not-found")
    await seen.ask(404, "GET", f"/v1/messages/{UUID}/attempts", code="not-found")
    await seen.ask(200, "DELETE", f"/v1/agencies/{added['id']}")
    await seen.ask(404, "DELETE", f"/v1/agencies/{added['id']}", code="not-found")


async def about_routing(seen: Seen) -> None:
    await seen.ask(200, "GET", "/v1/routing")
    await seen.ask(200, "POST", "/v1/routing/trial")
    rules = {"rule": [{"to": ["housing/south"], "sections": ["housing"]}], "fallback": ["police"]}
    await seen.ask(200, "POST", "/v1/routing/trial", {"rules": rules, "since": "2026-11-23T16:00:00Z"})
    await seen.ask(400, "POST", "/v1/routing/trial", {"rules": {"rule": [{"to": []}]}}, code="request-invalid")
    await seen.ask(400, "POST", "/v1/routing/trial", {"rules": {"fallback": ["polise"]}}, code="request-invalid")
    await seen.ask(200, "POST", "/v1/routing/again", {"agency": "housing"})
    await seen.ask(404, "POST", "/v1/routing/again", {"agency": "housing/none"}, code="not-found")
    await seen.ask(400, "POST", "/v1/routing/again", {"agency": "Housing"}, code="request-invalid")


async def _disabled(tx: Transaction, agency_id: str) -> None:
    await keep_endpoint(tx, replace(await endpoint_of(tx, agency_id), state="disabled"))


async def about_messages(seen: Seen, camden: Borough) -> None:
    node, to = seen.node, f"/v1/messages/to/{camden.area}"
    good = form(camden.area)
    await seen.ask(200, "POST", "/v1/forms/check", data=good)
    await seen.ask(200, "POST", "/v1/forms/check", data=b"{")
    sent = await seen.ask(201, "POST", to, data=good, headers={"idempotency-key": UUID})
    await seen.ask(200, "POST", to, data=good, headers={"idempotency-key": UUID})
    await seen.ask(200, "GET", f"/v1/messages/{UUID}/attempts")
    other = json.loads(good)
    other["subject"]["name"] = "Otherwise Fictitious"
    await seen.ask(409, "POST", to, other, headers={"idempotency-key": UUID}, code="conflict")
    await seen.ask(400, "POST", to, data=good, headers={"idempotency-key": "7"}, code="request-invalid")
    await seen.ask(422, "POST", to, data=b"{}", code="form-invalid")
    await seen.ask(404, "POST", "/v1/messages/to/E09000033", data=form("E09000033"), code="peer-unknown")
    brent = Borough("exchange.brent.example", "E09000005", camden._now_ms)
    await node.know(brent, verified=False)
    await seen.ask(403, "POST", "/v1/messages/to/E09000005", data=form("E09000005"), code="peer-untrusted")
    admission = node.services.admission
    usual = admission.table
    # Cards wait there already, and where the node has looked meanwhile they count.
    waiting = node.rows("SELECT count(*) FROM outbox WHERE lane = 'peer:exchange.barnet.example'")[0][0]
    admission.table = msgspec.structs.replace(usual, queue_messages=waiting + 1)
    barnet = form("E09000003")
    await seen.ask(201, "POST", "/v1/messages/to/E09000003", data=barnet)
    await admission.look(node.services)
    await seen.ask(503, "POST", "/v1/messages/to/E09000003", data=barnet, code="queue-full")
    admission.table = msgspec.structs.replace(usual, least_free_mib=10**9)
    await admission.look(node.services)
    if node.services.configuration.store_file is not None:
        await seen.ask(503, "POST", to, data=good, code="store-full")
    await seen.ask(200, "GET", "/v1/health")
    admission.table = usual
    await admission.look(node.services)
    await node.reached(sent["id"], "received")
    for path in ("", "/timeline", "/receipts"):
        await seen.ask(200, "GET", f"/v1/messages/{UUID}{path}")
        await seen.ask(404, "GET", f"/v1/messages/{UUID[::-1]}{path}", code="not-found")
    await seen.ask(400, "GET", f"/v1/messages/{UUID}?wait=soon", code="request-invalid")
    arrived = envelope(camden, await node.card())
    assert (await node.post(arrived))[0] == 200
    (inbound,) = (await seen.ask(200, "GET", "/v1/inbox"))["items"]
    for path in ("", "/timeline", "/receipts"):
        await seen.ask(200, "GET", f"/v1/messages/{inbound['id']}{path}")
    await seen.ask(200, "GET", "/v1/outbox")
    held = (await seen.ask(200, "GET", "/v1/held"))["items"]
    await seen.ask(200, "POST", f"/v1/held/{held[0]['number']}/release")
    await seen.ask(404, "POST", "/v1/held/999999/release", code="not-found")
    await seen.ask(400, "POST", "/v1/held/none/release", code="request-invalid")
    await seen.ask(200, "GET", "/v1/health")
    await seen.ask(200, "GET", "/v1/alarms")


async def about_handovers(seen: Seen, path: Path) -> None:
    await seen.ask(200, "GET", "/v1/handovers")
    await seen.ask(200, "GET", "/v1/handovers?overdue=true")
    await seen.ask(400, "GET", "/v1/handovers?overdue=perhaps", code="request-invalid")
    (message,) = (await seen.ask(200, "GET", "/v1/inbox"))["items"]
    place, folder = f"/v1/handovers/{message['id']}", path / "sections"
    for verb in ("met", "complete"):
        await seen.ask(404, "POST", f"/v1/handovers/{UUID[::-1]}/{verb}", code="not-found")
    await seen.ask(404, "GET", f"/v1/handovers/{UUID[::-1]}", code="not-found")
    await seen.ask(409, "POST", f"{place}/complete", code="handover-open")
    folder.mkdir(0o700)
    holder = {"name": "Ana Fictitious", "role": "Duty officer", "contact": "020 7946 0000"}
    for item in (await seen.ask(200, "GET", place))["sections"]:
        kind = item["agency"]
        wanted = {"kind": kind, "folder": {"directory": str(folder)}}
        added = await seen.ask(201, "POST", "/v1/agencies", wanted)
        await seen.node.reached_by(message["id"], kind, "delivered")
        await seen.ask(200, "POST", f"/v1/sections/{message['id']}/{item['section']}/own", {**holder, "agency": kind})
        await seen.ask(200, "DELETE", f"/v1/agencies/{added['id']}")
    await seen.ask(200, "POST", f"{place}/met")
    await seen.ask(200, "POST", f"{place}/complete")
    await seen.ask(200, "GET", place)


async def about_attachments(seen: Seen, camden: Borough) -> None:
    """Of a message that waits for a borough which takes it later, and of one that is here."""
    node = seen.node
    message = "0b7f4a52-9c1e-4d0e-8f64-2f7f3c1d9a11"
    place, to = f"/v1/messages/{message}/attachments/risk/1", f"?to={camden.area}"
    header = base64.urlsafe_b64encode(b'{"title":"An order","file_name":"order.pdf"}').decode()
    named = {"exchange-attachment": header}
    await seen.ask(404, "GET", f"/v1/messages/{message}/attachments", code="not-found")
    await seen.ask(400, "PUT", place + to, data=b"file", code="request-invalid")
    await seen.ask(404, "PUT", f"{place}?to=E09000033", data=b"file", headers=named, code="peer-unknown")
    await seen.ask(403, "PUT", f"{place}?to=E09000005", data=b"file", headers=named, code="peer-untrusted")
    await seen.ask(422, "PUT", place + to, data=b"EICAR", headers=named, code="attachment-refused")
    admission = node.services.admission
    usual = admission.table
    admission.table = msgspec.structs.replace(usual, queue_messages=1)
    await admission.look(node.services)
    await seen.ask(503, "PUT", f"{place}?to=E09000003", data=b"file", headers=named, code="queue-full")
    if node.services.configuration.store_file is not None:
        admission.table = msgspec.structs.replace(usual, least_free_mib=10**9)
        await admission.look(node.services)
        await seen.ask(503, "PUT", place + to, data=b"file", headers=named, code="store-full")
    admission.table = usual
    await admission.look(node.services)
    await seen.ask(201, "PUT", place + to, data=b"file", headers=named)
    await seen.ask(200, "GET", f"/v1/messages/{message}/attachments")
    await seen.ask(404, "GET", place, code="not-found")
    good = form(camden.area)
    await seen.ask(201, "POST", f"/v1/messages/to/{camden.area}", data=good, headers={"idempotency-key": message})
    await seen.ask(200, "PUT", place + to, data=b"file", headers=named)
    await seen.ask(409, "PUT", place + to, data=b"other", headers=named, code="conflict")
    await seen.ask(200, "GET", place)
    await seen.ask(400, "GET", f"{place}00", code="request-invalid")
    await seen.ask(400, "POST", f"{place}00/release", code="request-invalid")
    await seen.ask(404, "POST", f"/v1/messages/{UUID}/attachments/risk/9/release", code="not-found")
    await seen.ask(409, "POST", f"{place}/release", code="conflict")
    (inbound,) = (await seen.ask(200, "GET", "/v1/inbox"))["items"]
    here = await arrived_attachment(node, inbound["id"])
    await seen.ask(409, "GET", here, code="attachment-not-ready")
    await seen.ask(200, "POST", f"{here}/release")


async def arrived_attachment(node: Node, message_id: str, section: str = "risk") -> str:
    """An attachment that came and is in quarantine; where it is."""

    async def operation(tx: Transaction) -> None:
        message = await message_by_id(tx, message_id)
        row = AttachmentRow(
            origin=message.origin,
            message_id=message_id,
            section=section,
            place=1,
            recipient=node.origin,
            message=message.number,
            state="quarantined",
            at_ms=0,
        )
        await add_attachment(tx, row)

    await node.services.store.write(operation)
    return f"/v1/messages/{message_id}/attachments/{section}/1"


async def about_the_gate(seen: Seen, area: str) -> None:
    data, to, preview = form(area, "E09000015"), f"/v1/messages/to/{area}", f"/v1/forms/preview/{area}"
    await seen.ask(200, "POST", preview, data=data)
    await seen.ask(422, "POST", preview, data=b"{}", code="form-invalid")
    empty = {"override-reason": ""}
    await seen.ask(400, "POST", preview, data=data, headers=empty, code="request-invalid")
    await seen.ask(422, "POST", to, data=data, code="gate-closed")
    await seen.ask(400, "POST", "/v1/agreements", {}, code="request-invalid")
    place = f"/v1/agreements/{(await seen.ask(201, 'POST', '/v1/agreements', agreed(area)))['id']}"
    await seen.ask(200, "GET", place)
    await seen.ask(404, "GET", "/v1/agreements/agreement-none", code="not-found")
    ada = await person(seen.node, "ada")
    waiting = [(await ada.send(data, area))["id"] for _ in range(3)]
    own = (await seen.ask(201, "POST", to, data=data))["id"]
    await seen.ask(200, "GET", "/v1/approvals")
    await seen.ask(200, "GET", f"/v1/approvals/{own}")
    await seen.ask(404, "GET", f"/v1/approvals/{UUID}", code="not-found")
    approve = f"/v1/approvals/{waiting[0]}/approve"
    await seen.ask(403, "POST", f"/v1/approvals/{own}/approve", {}, code="second-person-needed")
    await seen.ask(400, "POST", approve, {"sha256": "0" * 64}, code="request-invalid")
    await seen.ask(200, "POST", approve, {})
    await seen.ask(404, "POST", approve, {}, code="not-found")
    refuse = f"/v1/approvals/{waiting[1]}/refuse"
    await seen.ask(400, "POST", refuse, {}, code="request-invalid")
    await seen.ask(200, "POST", refuse, {"reason": "Not that borough."})
    await seen.ask(404, "POST", refuse, {"reason": "Not that borough."}, code="not-found")
    for number in (0, 1, 2):
        for path in ("", "/timeline"):
            await seen.ask(200, "GET", f"/v1/messages/{waiting[number]}{path}")
    await seen.ask(400, "POST", f"{place}/expire", {}, code="request-invalid")
    await seen.ask(200, "POST", f"{place}/expire", {"reason": "The borough left it."})
    await seen.ask(409, "POST", f"{place}/expire", {"reason": "Again."}, code="already-there")
    await seen.ask(404, "POST", "/v1/agreements/agreement-none/expire", {"reason": "None."}, code="not-found")
    await seen.ask(422, "POST", f"/v1/approvals/{waiting[2]}/approve", {}, code="gate-closed")
    await seen.ask(200, "GET", "/v1/agreements")
    await ada.send(urgent(area, "E09000015"), area, override_reason="It%20cannot%20wait.")
    await seen.ask(200, "GET", "/v1/overrides")
    await seen.ask(200, "GET", "/v1/health")


async def about_keys(seen: Seen, camden: Borough) -> None:
    path = seen.node.services.configuration.keystore_path
    await seen.ask(200, "GET", "/v1/keys")
    kept = path.read_bytes()
    path.write_bytes(b"nothing")
    await seen.ask(500, "GET", "/v1/keys", code="keystore-corrupt")
    path.unlink()
    await seen.ask(500, "GET", "/v1/keys", code="configuration-invalid")
    path.write_bytes(kept)
    locked = {"salt": base64.b64encode(bytes(16)).decode(), "opslimit": 1, "memlimit_bytes": 8192, "sealed_key": ""}
    await seen.ask(400, "POST", "/v1/keys/passphrase", locked, code="request-invalid")
    await seen.ask(200, "POST", "/v1/keys/rotate")
    await seen.ask(200, "GET", "/v1/card")
    prepared = await seen.ask(200, "POST", "/v1/keys/revocation")
    await seen.ask(400, "POST", "/v1/keys/revoke", {"revocation": 7}, code="request-invalid")
    await seen.ask(200, "POST", "/v1/keys/revoke", prepared)
    await seen.ask(400, "POST", "/v1/keys/rotate", code="request-invalid")
    await seen.ask(403, "POST", f"/v1/messages/to/{camden.area}", data=form(camden.area), code="identity-revoked")
    await seen.ask(403, "PUT", f"/v1/messages/{UUID}/attachments/risk/1", data=b"file", code="identity-revoked")


async def test_what_every_route_of_the_local_api_may_answer_is_given(enfield: Node) -> None:
    address = enfield.services.configuration.tables.local.address
    async with aiohttp.ClientSession(f"http://{address}") as tcp, tcp.get("/v1/health") as answer:
        assert (answer.status, (await answer.json(content_type=None))["code"]) == (401, "token-needed")
    seen = Seen(enfield, LOCAL, LOCAL_COMMON)
    await seen.ask(413, "POST", "/v1/tokens", data=io.BytesIO(bytes(2 * 1024 * 1024 + 1)), code="too-large")
    reader, writer = await asyncio.open_unix_connection(str(enfield.services.configuration.socket_path))
    writer.write(b"POST /v1/tokens HTTP/1.1\r\nhost: node\r\ncontent-encoding: gzip\r\ncontent-length: 3\r\n\r\nabc")
    assert b" 400 " in await reader.readline()
    writer.close()
    await enfield.services.store.close()
    await seen.ask(503, "GET", "/v1/inbox", code="store-unavailable")


async def test_every_answer_of_the_api_for_peers_that_is_described_is_given(enfield: Node, camden: Borough) -> None:
    seen = Seen(enfield, PEERS, PEER_COMMON)
    await enfield.know(camden)
    sealed = {"content-type": ENVELOPE_TYPE}
    card = await enfield.card()
    await seen.ask(200, "POST", "/v1/envelopes", data=envelope(camden, card), headers=sealed)
    await seen.ask(403, "POST", "/v1/envelopes", data=b"nothing", headers=sealed, code="unacceptable")
    await seen.ask(415, "POST", "/v1/envelopes", data=b"nothing", code="unsupported-media-type")
    _, given = await invite(enfield)
    # Who is registered already, under the same identity, is answered too.
    data = sealed_registration(card, given, camden.card())
    kind = {"content-type": REGISTRATION_TYPE}
    await seen.ask(200, "POST", "/v1/registrations", data=data, headers=kind)
    for path, type_ in (
        ("registrations", REGISTRATION_TYPE),
        ("pairings", PAIRING_TYPE),
        ("pairings/reveal", PAIRING_TYPE),
        ("rejoin", REJOIN_TYPE),
    ):
        kind = {"content-type": type_}
        await seen.ask(403, "POST", f"/v1/{path}", data=b"nothing", headers=kind, code="unacceptable")
        await seen.ask(415, "POST", f"/v1/{path}", data=b"nothing", code="unsupported-media-type")
    for path, type_, limit in (
        ("/v1/envelopes", ENVELOPE_TYPE, 16 * 1024 * 1024),
        ("/v1/revocations", ENVELOPE_TYPE, 65_536),
        ("/v1/registrations", REGISTRATION_TYPE, 262_144),
        ("/v1/pairings", PAIRING_TYPE, 1024),
        ("/v1/pairings/reveal", PAIRING_TYPE, 1024),
        ("/v1/rejoin", REJOIN_TYPE, 65_536),
    ):
        head = f"POST {path} HTTP/1.1\r\nhost: node\r\ncontent-type: {type_}\r\n"
        head += f"content-length: {limit + 1}\r\n\r\n"
        host, _, port = enfield.url.removeprefix("http://").partition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(head.encode())
        assert b" 413 " in await reader.readline()
        writer.close()
        seen.answers.add(("post", path, 413, "too-large"))
    status, body = await raw(enfield.url, b"GET\r\n\r\n", close=False)
    assert (" 400 " in status, json.loads(body)["code"]) == (True, "bad-request")
    admission = enfield.services.admission
    usual, admission.table = admission.table, msgspec.structs.replace(admission.table, least_free_mib=10**9)
    await admission.look(enfield.services)
    shown = camden.shown
    if enfield.services.configuration.store_file is not None:
        await seen.ask(503, "POST", "/v1/envelopes", data=envelope(camden, card), headers=sealed, code="store-full")
    camden.shown, admission.table = shown, usual
    await seen.ask(200, "GET", "/v1/card")
    await seen.ask(200, "GET", "/v1/health")
    await seen.ask(200, "GET", "/v1/log/checkpoint")
    await seen.ask(200, "GET", "/v1/log/consistency?first=1&second=2")
    await seen.ask(400, "GET", "/v1/log/consistency?first=one", code="request-invalid")
    await seen.ask(404, "GET", "/v1/log/consistency?first=1&second=999999", code="not-found")
    await seen.ask(403, "POST", "/v1/revocations", data=b"nothing", code="unacceptable")
    await seen.ask(200, "POST", "/v1/revocations", data=revocation(camden.signing, camden.origin))
    own = await prepare_revocation(enfield.services)
    await enfield.local("POST", "/v1/keys/revoke", {"revocation": json.loads(own)})
    await seen.ask(200, "GET", "/v1/card")
    await enfield.services.store.close()
    await seen.ask(503, "GET", "/v1/log/checkpoint", code="try-later")
    assert missing(seen.answers, PEERS) == set()


@pytest.mark.parametrize(("place", "word"), sorted(set(ELSEWHERE.values())))
def test_an_answer_that_is_shown_elsewhere_is_shown_there(place: str, word: str) -> None:
    assert word in (TESTS / f"{place}.py").read_text(encoding="utf-8")


async def test_every_answer_of_the_api_for_agencies_that_is_described_is_given(
    tmp_path: Path, clock: Clock, camden: Borough
) -> None:
    # What agencies say of sections has tests of its own.
    operations = tuple(one for one in (*AGENCIES, *AGENCIES_OPEN) if not one.path.startswith("/v1/sections/"))
    async with fetcher.listening(tmp_path, clock) as node, AsyncExitStack() as stack:
        await stack.enter_async_context(camden.listening(Desk(camden).answer))
        await node.know(camden)
        housing = await fetcher.add(node)
        seen = Seen(node, operations, AGENCY_COMMON, base=housing.url)
        token = {"authorization": f"Bearer {housing.token}"}
        message_id = await fetcher.send(node, camden)
        await seen.ask(200, "GET", "/v1/health")
        await seen.ask(200, "GET", "/v1/agency", headers=token)
        page = await seen.ask(200, "GET", "/v1/agency/sections?wait=20", headers=token)
        await seen.ask(400, "GET", "/v1/agency/sections?after=x", headers=token, code="request-invalid")
        first, second = (item["id"] for item in page["items"])
        await seen.ask(200, "POST", f"/v1/agency/sections/{first}/delivered", headers=token)
        await seen.ask(200, "POST", f"/v1/agency/sections/{second}/refused", headers=token)
        for verb in ("delivered", "refused"):
            await seen.ask(404, "POST", f"/v1/agency/sections/evt_none/{verb}", headers=token, code="not-found")
            await seen.ask(401, "POST", f"/v1/agency/sections/evt_none/{verb}", code="token-needed")
        place = await arrived_attachment(node, message_id, "housing")
        place = place.replace("/v1/messages/", "/v1/agency/attachments/").replace("/attachments/housing", "/housing")
        await seen.ask(409, "GET", place, headers=token, code="attachment-not-ready")
        await seen.ask(400, "GET", f"{place}00", headers=token, code="request-invalid")
        await seen.ask(404, "GET", f"{place}2", headers=token, code="not-found")
        for path in ("/v1/agency", "/v1/agency/sections", place):
            await seen.ask(401, "GET", path, code="token-needed")
    assert missing(seen.answers, operations) == set()
