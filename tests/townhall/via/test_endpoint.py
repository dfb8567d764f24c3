"""Where answers come from: addresses, keys, prices."""

import sys
import types

import pytest

from townhall.errors import ModelError
from townhall.via import endpoint as module
from townhall.via.endpoint import RemoteEndpoint, check_url, find_key, prices_of


@pytest.mark.parametrize("url", ["http://127.0.0.1:8000/v1/", "https://api.example.com/v1"])
def test_an_address_is_kept_without_its_last_slash(url):
    assert check_url(url) == url.rstrip("/")


@pytest.mark.parametrize(
    "url",
    [
        "",
        "localhost:8000",
        "ftp://a/v1",
        "http://",
        "http://a:x/v1",
        "http://u:p@a/v1",
        "http://a/v1?key=1",
        "http://a/#b",
        "http://a b/v1",
    ],
)
def test_what_is_no_address_is_refused_and_a_secret_in_it_not_repeated(url):
    with pytest.raises(ModelError, match="--via") as found:
        check_url(url)
    assert "u:p" not in str(found.value)


def test_openai_has_the_usual_variable_and_no_other_host_gets_its_key(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "for-openai")
    assert RemoteEndpoint.opened("https://api.openai.com/v1", "m").key == "for-openai"
    other = RemoteEndpoint.opened("http://example.com/v1", "m")
    assert other.key is None and other.key_name == "TOWNHALL_VIA_KEY"
    monkeypatch.setenv("TOWNHALL_VIA_KEY", "own")
    other = RemoteEndpoint.opened("http://example.com/v1", "m")
    assert other.key == "own" and other.exposed and "own" not in repr(other)
    assert not RemoteEndpoint.opened("http://127.0.0.1:1/v1", "m").exposed
    monkeypatch.setenv("MINE", "named")
    assert RemoteEndpoint.opened("https://api.openai.com/v1", "m", "MINE").key == "named"


def test_a_keyring_is_asked_where_there_is_one(monkeypatch):
    monkeypatch.delenv("NO_SUCH", raising=False)
    kept = {("townhall", "example.com"): "from-the-ring"}
    ring, errors = types.ModuleType("keyring"), types.ModuleType("keyring.errors")
    ring.get_password = lambda service, host: kept.get((service, host))
    errors.KeyringError = type("KeyringError", (Exception,), {})
    monkeypatch.setitem(sys.modules, "keyring", ring)
    monkeypatch.setitem(sys.modules, "keyring.errors", errors)
    monkeypatch.setattr(module, "find_spec", lambda name: object())
    assert find_key("NO_SUCH", "example.com") == "from-the-ring" and find_key("NO_SUCH", "elsewhere") is None

    def locked(service, host):
        raise errors.KeyringError("locked")

    ring.get_password = locked
    assert find_key("NO_SUCH", "example.com") is None
    with pytest.raises(ModelError, match="--via-key NO_SUCH"):
        find_key("NO_SUCH", "example.com", asked=True)


def test_a_key_that_no_header_can_carry_is_refused_unseen(monkeypatch):
    monkeypatch.setenv("BAD", "se cret\n1")
    with pytest.raises(ModelError, match="BAD") as found:
        find_key("BAD", "h")
    assert "cret" not in str(found.value)


def test_prices_are_lines_of_a_table():
    table = prices_of(["gpt-4o-mini=0.15/0.60 USD", " org/model:free = 0/0 "])
    assert (table["gpt-4o-mini"].prompt, table["gpt-4o-mini"].answer, table["gpt-4o-mini"].currency) == (0.15, 0.6, "USD")
    assert table["gpt-4o-mini"].of(1_000_000, 500_000) == pytest.approx(0.45) and table["org/model:free"].of(9, 9) == 0
    for line in ("gpt=1", "=1/2", "gpt=1/2/3", "gpt=-1/2", "gpt=a/b"):
        with pytest.raises(ModelError, match="--via-price"):
            prices_of([line])


def test_off_is_a_word_in_settings_files_though_yaml_reads_it_as_false(tmp_path):
    from townhall.cli.chat_options import ChatOptions
    from townhall.cli.settings_files import read_settings

    (tmp_path / "s.yaml").write_text('enrich: off\nvia_price: ["m=1/2 EUR"]\ncompress: 300\n')
    read = read_settings(tmp_path / "s.yaml", ChatOptions.defaults())
    assert (read["enrich"].value, read["via_price"].value, read["compress"].value) == ("off", ("m=1/2 EUR",), 300)
