"""What every channel needs of the network: TLS, being cut off, and what went wrong in words with the mend."""

from __future__ import annotations

import contextlib
import socket
import ssl
from pathlib import Path

from schemas.errors import ConfigurationError, PermanentFailure


def tls_context(ca_file: Path | None, certificate: Path | None, key: Path | None) -> ssl.SSLContext:
    """TLS 1.2 or later; the peer is known by `ca_file` (default: the system's), and we to it by `certificate`.

    Raises
    ------
    ConfigurationError
        A file cannot be read, or is not what it should be.
    """
    try:
        context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cafile=ca_file)
    except OSError as error:  # ssl.SSLError among it
        raise ConfigurationError(f"ca_file: {ca_file}: {_file_words(error)}") from error
    if certificate is not None:
        try:
            # A password that is none: without one OpenSSL would ask for it on the terminal, and wait.
            context.load_cert_chain(certificate, key, password="")
        except OSError as error:
            raise ConfigurationError(f"certificate, key: {certificate}, {key}: {_file_words(error)}") from error
    return context


def cut_off(connection: socket.socket) -> None:
    """End a connection at once, from any thread; who reads or writes it gets an end or OSError."""
    with contextlib.suppress(OSError):
        # Not the SSLSocket's own, which forgets its keys first: another thread could then write in the clear.
        socket.socket.shutdown(connection, socket.SHUT_RDWR)


def network_words(
    error: Exception, timeout: float, *, awaited: str = "answer", mend: str = "host", otherwise: str = ""
) -> str:
    """What the network said of a destination, with the mend.

    Parameters
    ----------
    timeout:
        Seconds that were waited, for what was `awaited`.
    mend:
        The key of the destination that holds its host.
    otherwise:
        Follows a fault that has no mend of its own.
    """
    if isinstance(error, TimeoutError):
        return f"no {awaited} within {timeout:g} s: is it overloaded, or a firewall between?"
    if isinstance(error, ConnectionRefusedError):
        return "nothing listens there: is it running, is the port right?"
    if isinstance(error, (socket.gaierror, UnicodeError)):  # UnicodeError: no such name can be
        return f"the host name is not known: mend {mend} of this destination, or the name service"
    return f"the network failed ({getattr(error, 'strerror', None) or type(error).__name__}){otherwise}"


def not_trusted(error: ssl.SSLCertVerificationError, peer: object) -> PermanentFailure:
    """The peer's certificate does not prove who it is."""
    return PermanentFailure(
        f"{peer}: its certificate is not trusted ({error.verify_message}): mend ca_file of this destination, "
        "or the certificate"
    )


def _file_words(error: OSError) -> str:
    if isinstance(error, ssl.SSLError):
        return f"not what it should be, in PEM and without a password ({error.reason or type(error).__name__})"
    return f"cannot be read ({error.strerror})"
