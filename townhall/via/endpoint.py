"""Which server answers in the local model's place: its address, its model, the key for it, and what its tokens cost."""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from urllib.parse import urlsplit

from townhall.errors import ModelError

OPENAI = "api.openai.com"
OPENAI_KEY, OWN_KEY = "OPENAI_API_KEY", "TOWNHALL_VIA_KEY"  # variables of the environment
KEYRING = "townhall"  # the service under which a keyring holds keys, by host
MILLION = 1_000_000


@dataclass(frozen=True)
class TokenPrice:
    """What a million tokens of prompts and of answers cost."""

    prompt: float
    answer: float
    currency: str = ""

    def of(self, prompt_tokens: float, answer_tokens: float) -> float:
        return (prompt_tokens * self.prompt + answer_tokens * self.answer) / MILLION


@dataclass(frozen=True)
class RemoteEndpoint:
    """`url` is the base that OpenAI's clients take, such as http://127.0.0.1:8000/v1. The key is never shown."""

    url: str
    model: str
    key: str | None = field(default=None, repr=False)
    key_name: str = OWN_KEY  # the variable that holds the key, or should
    timeout: float = 60.0  # seconds of silence before the server counts as away
    price: TokenPrice | None = None

    @property
    def host(self) -> str:
        """Name and port, for messages."""
        return urlsplit(self.url).netloc

    @property
    def place(self) -> dict[str, str]:
        """Who answers and where, in JSON values."""
        return {"model": self.model, "host": self.host}

    @property
    def loopback(self) -> bool:
        """Is it on this machine?"""
        return (urlsplit(self.url).hostname or "") in ("localhost", "127.0.0.1", "::1")

    @property
    def exposed(self) -> bool:
        """Does the key cross a network in the clear?"""
        return bool(self.key) and not self.loopback and urlsplit(self.url).scheme == "http"

    @classmethod
    def opened(
        cls, url: str, model: str | None, key_name: str | None = None, timeout: float = 60.0, prices: Sequence[str] = ()
    ) -> "RemoteEndpoint":
        """Checked, with its key looked up. ModelError, which names the flag, for what cannot be meant."""
        checked = check_url(url)
        if not model or not model.strip():
            raise ModelError(f"--via {url} needs the name of a model there: --via-model NAME")
        if find_spec("openai") is None:
            raise ModelError("--via needs the package openai: pip install 'townhall[via]'")
        parts = urlsplit(checked)
        name = key_name or (OPENAI_KEY if parts.hostname == OPENAI else OWN_KEY)
        key = find_key(name, parts.hostname or "", asked=key_name is not None)
        return cls(checked, model.strip(), key, name, timeout, prices_of(prices).get(model.strip()))


def check_url(url: str) -> str:
    """Without a slash at its end. ModelError for what is no address of an API, or holds a secret."""
    try:
        parts = urlsplit(url.strip())
        port = parts.port  # raises where it is no number
    except ValueError as error:
        raise ModelError(f"--via takes the address of an API, such as http://127.0.0.1:8000/v1 ({error})") from error
    if parts.username is not None or parts.password is not None or parts.query or parts.fragment:
        raise ModelError(
            "--via takes an address without user name, password, ? and #, for logs have it; a key belongs into the environment"
        )
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0 or not url.strip().isprintable() or " " in url.strip():
        raise ModelError(f"--via {url[:80]!r} is no address of an API; pass one such as http://127.0.0.1:8000/v1")
    return url.strip().rstrip("/")


def find_key(name: str, host: str, asked: bool = False) -> str | None:
    """From the environment's variable `name`, else from the keyring, where that package is installed; None where neither has one.

    ModelError for a key that no header can carry, and where the variable was `asked` for and neither has a key.
    """
    key = os.environ.get(name, "").strip() or _from_keyring(host)
    if key and not (key.isascii() and key.isprintable() and " " not in key):
        raise ModelError(f"the key in {name} holds a space or a character that no header can carry; set it anew")
    if asked and not key:
        raise ModelError(f"--via-key {name}: the environment has no such variable, and no keyring a key for {host}; export {name}=…")
    return key or None


def _from_keyring(host: str) -> str:
    if find_spec("keyring") is None:
        return ""
    import keyring
    from keyring.errors import KeyringError

    try:
        return (keyring.get_password(KEYRING, host) or "").strip()
    except (KeyringError, OSError, RuntimeError):  # locked, or there is none on this machine
        return ""


_PRICE = re.compile(
    r"\s*(?P<model>[^=]+?)\s*=\s*(?P<prompt>\d+(?:\.\d+)?)\s*/\s*(?P<answer>\d+(?:\.\d+)?)\s*(?P<currency>[^\s\d/=]{0,8})\s*"
)


def prices_of(lines: Sequence[str]) -> Mapping[str, TokenPrice]:
    """A price table by the models' names, of lines such as `gpt-4o-mini=0.15/0.60 USD`. ModelError names the line."""
    found = {}
    for line in lines:
        if (match := _PRICE.fullmatch(line[:300])) is None:
            raise ModelError(
                f"--via-price {line[:60]!r} is no price; pass MODEL=PROMPT/ANSWER of a million tokens: gpt-4o-mini=0.15/0.60 USD"
            )
        found[match["model"]] = TokenPrice(float(match["prompt"]), float(match["answer"]), match["currency"])
    return found
