"""Who may call which of our AE titles, in the words and reason codes of PS3.8 9.3.4."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final

from schemas.decision import Urgency
from schemas.errors import ConfigurationError
from schemas.identity import Sender


@dataclass(frozen=True, kw_only=True, slots=True)
class Caller:
    """One line of an allow-list. "*" is any title, a network of prefix length 0 any address."""

    ae_title: str = "*"
    address: str = "0.0.0.0/0"

    def admits(self, sender: Sender) -> bool:
        """Whether this line lets `sender` in."""
        if self.ae_title not in ("*", sender.calling_ae):
            return False
        return self.network.prefixlen == 0 or _address(sender.address) in self.network

    @property
    def network(self) -> IPv4Network | IPv6Network:
        """`address` as a network. Raises `ConfigurationError`."""
        try:
            return ip_network(self.address, strict=False)
        except ValueError as error:
            raise ConfigurationError(f"accept: {error}") from error


@dataclass(frozen=True, kw_only=True, slots=True)
class LocalAE:
    """One of the titles that the port answers to. An empty `accept` lets everybody in."""

    ae_title: str
    order_urgency: Urgency = Urgency.ROUTINE
    accept: tuple[Caller, ...] = ()


@dataclass(frozen=True, slots=True)
class Refusal:
    """Result, Source and Reason of an A-ASSOCIATE-RJ (PS3.8 table 9-21), and the words for a person."""

    result: int
    source: int
    reason: int
    what: str
    mend: str


def admit(sender: Sender, local_aes: Sequence[LocalAE]) -> LocalAE | Refusal:
    """The local AE that `sender` may talk to, or why it may not. Titles are compared without their padding."""
    local = next((ae for ae in local_aes if ae.ae_title == sender.called_ae), None)
    if local is None:
        titles = ", ".join(ae.ae_title for ae in local_aes)
        return Refusal(
            *_PERMANENT,
            0x07,
            "called AE title not recognised",
            f"set the called AE title at the sender to one of {titles} (case matters), or add it under [[dicom.also]]",
        )
    if not local.accept or any(line.admits(sender) for line in local.accept):
        return local
    if any(line.ae_title in ("*", sender.calling_ae) for line in local.accept):
        what = "calling address not allowed"
    else:
        what = "calling AE title not recognised"
    title, address = sender.calling_ae or "*", sender.address
    return Refusal(
        *_PERMANENT, 0x03, what, f'add {{ ae_title = "{title}", address = "{address}" }} to accept of {local.ae_title}'
    )


def too_many(limit: int) -> Refusal:
    """Every association that the configuration allows is taken."""
    return Refusal(
        *(0x02, 0x03, 0x02),  # rejected-transient, presentation related, local-limit-exceeded
        f"local limit of {limit} associations reached",
        "let the sender try again, or raise dicom.max_associations",
    )


def titles_of(request: bytes | bytearray | memoryview) -> tuple[str, str]:
    """Called and calling AE title of an encoded A-ASSOCIATE-RQ (PS3.8 9.3.2), readable whatever they hold."""
    return _title(request[10:26]), _title(request[26:42])


def _title(raw: bytes | bytearray | memoryview) -> str:
    text = bytes(raw).replace(b"\0", b" ").decode("latin-1")
    return "".join(c if c.isascii() and c.isprintable() and c != "\\" else "?" for c in text).strip()


def _address(text: str) -> object:
    address = ip_address(text.partition("%")[0])
    return (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address


_PERMANENT: Final = (0x01, 0x01)  # rejected-permanent by the service user
