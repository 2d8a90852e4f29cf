"""The configuration file: what is refused, under which key, and what plain HTTP is allowed for."""

from pathlib import Path

import msgspec
import pytest

from exchange.node.config import FileTables, is_loopback, is_node_url, load_configuration, split_address
from exchange.node.errors import ConfigurationInvalid

NODE = {
    "origin": '"exchange.hackney.example"',
    "area": '"E09000012"',
    "name": '"London Borough of Hackney"',
    "url": '"https://exchange.hackney.example"',
}


def write(directory: Path, **changes: dict[str, str]) -> Path:
    """A file that is well but for `changes`: TOML values by table and key; an empty value leaves the key out."""
    tables: dict[str, dict[str, str]] = {"node": NODE} | {
        name: (NODE | keys if name == "node" else keys) for name, keys in changes.items()
    }
    path = directory / "exchange.toml"
    lines = [
        line
        for name, keys in tables.items()
        for line in (f"[{name}]", *(f"{key} = {value}" for key, value in keys.items() if value))
    ]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_the_least_that_a_file_must_say_is_enough(tmp_path: Path) -> None:
    configuration = load_configuration(write(tmp_path))
    assert configuration.origin == "exchange.hackney.example"
    assert configuration.tables.listen.address == "127.0.0.1:7400"
    assert configuration.tables.delivery.backoff_cap_s == 60


@pytest.mark.parametrize(
    ("table", "key", "value"),
    [
        ("node", "origin", '"https://exchange.hackney.example"'),
        ("node", "origin", '"Exchange.Hackney.Example"'),
        ("node", "origin", '""'),
        ("node", "origin", "7"),
        ("node", "area", '"Hackney"'),
        ("node", "area", '"E0900001"'),
        ("node", "area", r'"E09000012\n"'),
        ("node", "name", '""'),
        ("node", "name", f'"{"x" * 201}"'),
        ("node", "url", '""'),
        ("node", "url", '"exchange.hackney.example"'),
        ("node", "url", '"ftp://exchange.hackney.example"'),
        ("node", "url", '"https://"'),
        ("node", "url", '"https://["'),
        ("node", "url", '"https://exchange.hackney.example:99999"'),
        ("node", "url", '"https://a b.example"'),
        ("node", "url", '"https://user:word@exchange.hackney.example"'),
        ("node", "url", '"https://exchange.hackney.example/?to="'),
        ("node", "url", '"https://exchange.hackney.example/#part"'),
        ("node", "url", f'"https://exchange.hackney.example/{"x" * 500}"'),
        ("listen", "address", '""'),
        ("listen", "address", '"7400"'),
        ("listen", "address", '"127.0.0.1:65536"'),
        ("listen", "address", '"::1:7400"'),
        ("local", "address", '"7480"'),
        ("local", "socket", '""'),
        ("keystore", "file", '""'),
        ("store", "url", '"mysql://localhost/exchange"'),
        ("store", "url", '"postgresql://exchange:word@db.hackney.example/exchange"'),
        ("store", "url", '"postgresql://db.hackney.example/exchange?user=exchange&password=word"'),
        ("store", "url", '"sqlite:///"'),
        ("keys", "sealing_lifetime_days", "0"),
        ("keys", "sealing_lifetime_days", "91"),
        ("keys", "sealing_grace_days", "-1"),
        ("keys", "sealing_grace_days", "nan"),
        ("delivery", "backoff_base_s", "0"),
        ("limits", "peer_messages_per_hour", "0"),
        ("limits", "peer_mib_per_hour", "31"),
        ("limits", "peer_store_gib", "0"),
        ("limits", "trusted_proxies", '["10.1.0.1/8"]'),
        ("limits", "trusted_proxies", '["proxy.hackney.example"]'),
        ("limits", "least_free_mib", "-1"),
        ("delivery", "backoff_base_s", '"1"'),
        ("delivery", "backoff_base_s", "true"),
        ("delivery", "backoff_cap_s", "inf"),
        ("delivery", "peer_timeout_s", "301"),
        ("delivery", "agency_timeout_s", "0"),
        ("delivery", "expires_after_days", "91"),
    ],
)
def test_a_value_that_cannot_be_is_refused_under_its_key(tmp_path: Path, table: str, key: str, value: str) -> None:
    path = write(tmp_path, **{table: {key: value}})
    with pytest.raises(ConfigurationInvalid) as refused:
        load_configuration(path)
    assert f"{table}.{key}" in str(refused.value)
    assert str(path) in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("key", NODE)
def test_what_a_node_cannot_be_without_is_named_when_it_is_missing(tmp_path: Path, key: str) -> None:
    with pytest.raises(ConfigurationInvalid, match=rf"node\.{key}: is missing$"):
        load_configuration(write(tmp_path, node={key: ""}))


@pytest.mark.parametrize(
    ("table", "key", "near"),
    [
        ("listen", "adress", "address"),
        ("delivery", "backof_cap_s", "backoff_cap_s"),
        ("keys", "sealing_life_days", "sealing_lifetime_days"),
        ("keystore", "pasphrase_file", "passphrase_file"),
    ],
)
def test_an_unknown_key_is_an_error_that_suggests_the_near_one(tmp_path: Path, table: str, key: str, near: str) -> None:
    with pytest.raises(ConfigurationInvalid, match=rf"{table}\.{key}: there is no such key; did you mean '{near}'\?"):
        load_configuration(write(tmp_path, **{table: {key: '"x"'}}))


@pytest.mark.parametrize(
    ("rules", "said"),
    [
        (
            '[routing]\nfallback = ["hosing"]',
            r"routing.fallback: there is no agency kind 'hosing'; did you mean 'housing'\?",
        ),
        ("[[routing.rule]]\nto = []", r"routing.rule\[0\].to: must have at least 1 entry"),
        ('[[routing.rule]]\nto = ["housing"]\n[[routing.rule]]\nto = ["Housing/South"]', r"routing.rule\[1\].to"),
        ('[[routing.rule]]\nto = ["housing"]\nmoves = ["soon"]', r"routing.rule\[0\].moves.*planned, urgent"),
        ('[[routing.rule]]\nto = ["housing"]\nage_bands = ["young"]', r"routing.rule\[0\].age_bands.*under-18"),
        ('[[routing.rule]]\nto = ["housing"]\nareas = ["Camden"]', r"routing.rule\[0\].areas"),
        ('[[routing.rule]]\nto = ["housing"]\nsection = ["housing"]', "did you mean 'sections'"),
        ('[[routing.rule]]\nto = ["housing"]\nsections = ["riks"]', "there is no section 'riks'; did you mean 'risk'"),
        ('[routing]\nsingle_point_of_contact = "coordinater"', "did you mean 'coordinator'"),
    ],
)
def test_a_routing_rule_that_cannot_be_is_refused_with_its_place_and_the_near_name(
    tmp_path: Path, rules: str, said: str
) -> None:
    path = write(tmp_path)
    path.write_text(f"{path.read_text()}{rules}\n")
    with pytest.raises(ConfigurationInvalid, match=said):
        load_configuration(path)


def test_an_unknown_table_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationInvalid, match=r"delivry: there is no such key; did you mean 'delivery'\?"):
        load_configuration(write(tmp_path, delivry={"peer_timeout_s": "1"}))


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ({"address": '"7402"'}, "not host:port"),
        ({"address": '"0.0.0.0:7402"'}, "without a certificate, only loopback"),
        ({"address": '"0.0.0.0:7402"', "certificate": '"tls.pem"'}, "certificate and key belong together"),
        ({"url": '"http://agencies.example"'}, "agencies.url: must be https"),
        ({"url": '"https://agencies.example/?x"'}, "agencies.url: must be https"),
    ],
)
def test_the_listener_for_agencies_is_held_to_the_same(tmp_path: Path, values: dict[str, str], why: str) -> None:
    with pytest.raises(ConfigurationInvalid, match=why):
        load_configuration(write(tmp_path, agencies=values))


@pytest.mark.parametrize("given", ["certificate", "key"])
def test_a_certificate_and_its_key_belong_together(tmp_path: Path, given: str) -> None:
    with pytest.raises(ConfigurationInvalid, match=r"listen: certificate and key belong together"):
        load_configuration(write(tmp_path, listen={given: '"tls.pem"'}))


LOOPBACK = ["127.0.0.1:7400", "127.255.0.9:1", "localhost:7400", "[::1]:7400"]
ELSEWHERE = [
    "0.0.0.0:7400",
    "[::]:7400",
    "10.0.0.5:7400",
    "192.0.2.1:7400",
    "localhost.example:7400",
    "127.0.0.1.example:7400",
    "[::ffff:127.0.0.1]:7400",
    "1270.0.0.1:7400",
    "2130706433:7400",
]


@pytest.mark.parametrize("address", LOOPBACK)
def test_plain_http_is_allowed_on_loopback(tmp_path: Path, address: str) -> None:
    tables = load_configuration(write(tmp_path, listen={"address": f'"{address}"'})).tables
    assert tables.listen.address == address


@pytest.mark.parametrize("address", ELSEWHERE)
def test_plain_http_is_refused_everywhere_but_on_loopback(tmp_path: Path, address: str) -> None:
    with pytest.raises(ConfigurationInvalid, match=r"listen\.address: without a certificate, only loopback"):
        load_configuration(write(tmp_path, listen={"address": f'"{address}"'}))


@pytest.mark.parametrize("address", ELSEWHERE)
def test_with_a_certificate_the_listener_may_be_anywhere(tmp_path: Path, address: str) -> None:
    listen = {"address": f'"{address}"', "certificate": '"tls.crt"', "key": '"tls.key"'}
    assert load_configuration(write(tmp_path, listen=listen)).tables.listen.certificate == "tls.crt"


@pytest.mark.parametrize("address", ELSEWHERE)
def test_the_local_api_is_on_loopback_or_not_on_tcp_at_all(tmp_path: Path, address: str) -> None:
    listen = {"address": f'"{address}"', "certificate": '"tls.crt"', "key": '"tls.key"'}
    with pytest.raises(ConfigurationInvalid, match=r"local\.address: must be on loopback"):
        load_configuration(write(tmp_path, listen=listen, local={"address": f'"{address}"'}))


@pytest.mark.parametrize("url", ["http://127.0.0.1:7401", "http://localhost", "http://[::1]:7401/hackney"])
def test_peers_may_be_told_of_plain_http_on_loopback(tmp_path: Path, url: str) -> None:
    assert load_configuration(write(tmp_path, node={"url": f'"{url}"'})).tables.node.url == url


@pytest.mark.parametrize("url", ["http://exchange.hackney.example", "http://10.0.0.5", "http://127.0.0.1.example"])
def test_peers_are_never_told_of_plain_http_elsewhere(tmp_path: Path, url: str) -> None:
    with pytest.raises(ConfigurationInvalid, match=r"node\.url: must be https://HOST"):
        load_configuration(write(tmp_path, node={"url": f'"{url}"'}))


@pytest.mark.parametrize(
    ("url", "can_be"),
    [
        ("https://exchange.hackney.example", True),
        ("https://exchange.hackney.example:8443/node", True),
        ("https://[2001:db8::1]:8443", True),
        (f"https://{'a' * 63}.example", True),
        (f"https://{'a' * 64}.example", False),
        (f"https://{'a.' * 126}b", True),
        (f"https://{'a.' * 127}b", False),
        ("https://a..b", False),
        ("https://.example", False),
        ("https://exchange.hackney.example.", False),
        ("https://.", False),
        ("http://127.0.0.1.", False),
        ("https://", False),
        ("https://:8443", False),
        ("https://exchange.hackney.example:99999", False),
        ("https://me@exchange.hackney.example", False),
        ("https://exchange.hackney.example?q", False),
        ("ftp://exchange.hackney.example", False),
        ("http://exchange.hackney.example", False),
    ],
)
def test_a_node_can_be_only_at_a_url_whose_host_can_be_asked_for(url: str, can_be: bool) -> None:
    assert is_node_url(url) is can_be


def test_paths_are_relative_to_the_file_and_not_to_where_the_program_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = tmp_path / "hackney"
    directory.mkdir()
    write(directory, store={"url": '"sqlite:///data/node.db"'})
    monkeypatch.chdir(tmp_path)
    configuration = load_configuration(Path("hackney/exchange.toml"))
    monkeypatch.chdir("/")
    assert configuration.store_file == directory / "data/node.db"
    assert configuration.socket_path == directory / "exchange.sock"
    assert configuration.card_path == directory / "card.json"
    assert configuration.resolve("keystore.json") == directory / "keystore.json"


def test_a_path_from_the_root_stays_as_it_is(tmp_path: Path) -> None:
    configuration = load_configuration(write(tmp_path, store={"url": '"sqlite:////var/lib/exchange/node.db"'}))
    assert configuration.store_file == Path("/var/lib/exchange/node.db")


def test_a_file_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationInvalid, match=r"there is no configuration .*absent\.toml"):
        load_configuration(tmp_path / "absent.toml")


@pytest.mark.parametrize(
    "data",
    [
        b"[node",
        b"\xff\xfe",
        b"node = 1\n",
        b"",
        b"[node]\n[node]\n",
        b'a = "\x00"',
        b"a = " + b"9" * 5000,
        b"a = " + b"[" * 9999,
    ],
)
def test_a_file_that_is_not_such_toml_is_named(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "exchange.toml"
    path.write_bytes(data)
    with pytest.raises(ConfigurationInvalid, match=r"exchange\.toml"):
        load_configuration(path)


@pytest.mark.parametrize(
    ("address", "parts"),
    [("127.0.0.1:0", ("127.0.0.1", 0)), ("[::1]:65535", ("::1", 65535)), ("node.example:443", ("node.example", 443))],
)
def test_an_address_is_a_host_and_a_port(address: str, parts: tuple[str, int]) -> None:
    assert split_address(address) == parts


@pytest.mark.parametrize("address", ["", ":", "a:", ":1", "a:1 ", "a:-1", "a:1_0", "[::1]", "::1", "[x]:1", "a b:1"])
def test_what_is_no_host_and_port_is_refused(address: str) -> None:
    with pytest.raises(ConfigurationInvalid, match=r"^the place: .* is not host:port$"):
        split_address(address, "the place")


@pytest.mark.parametrize("host", ["", "::", "127.1", "0177.0.0.1", "2130706433", "LOCALHOST.", "127.0.0.1\n", "::2"])
def test_what_may_not_be_this_machine_does_not_count_as_loopback(host: str) -> None:
    assert not is_loopback(host)


def test_every_table_tells_what_it_is_for() -> None:
    for field in msgspec.structs.fields(FileTables):
        assert field.type.__doc__
        assert field.type.__doc__.endswith(".")


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"passphrase_file": '"a"', "passphrase_credential": '"b"'}, "not both"),
        ({"passphrase_credential": '"../b"'}, "passphrase_credential"),
        ({"passphrase_credential": '".b"'}, "passphrase_credential"),
        ({"passphrase_credential": '"b/c"'}, "passphrase_credential"),
    ],
)
def test_the_passphrase_comes_from_one_place_and_a_credential_is_a_name(
    tmp_path: Path, keys: dict[str, str], said: str
) -> None:
    with pytest.raises(ConfigurationInvalid, match=said):
        load_configuration(write(tmp_path, keystore=keys))
