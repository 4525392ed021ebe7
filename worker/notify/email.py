"""A mail to whoever mends a destination, by SMTP (RFC 5321), over TLS unless it says otherwise.

For alarms alone: a mail is no way for a flag, and nothing of any patient stands in one.
"""

from __future__ import annotations

import contextlib
import smtplib
import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from email.message import EmailMessage
from email.utils import format_datetime
from typing import Final, Literal, TypeAlias

from schemas.errors import DeliveryError, PermanentFailure, TransientFailure
from worker.notify.network import cut_off
from worker.notify.uids import derive_uuid

_WHOLE: Final = 3  # times `timeout`, within which a mail has gone out or failed


@dataclass(frozen=True, kw_only=True)
class MailServer:
    """Where mail goes out, and as whom. TLS from the first byte (RFC 8314), or after a greeting (RFC 3207)."""

    host: str
    port: int
    security: Literal["starttls", "tls", "none"] = "starttls"
    username: str = ""
    password: str = ""
    tls: ssl.SSLContext | None = None

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


class Mail:
    """Sends mails of one sender to the same recipients."""

    def __init__(
        self,
        server: MailServer,
        *,
        sender: str,
        recipients: Sequence[str],
        clock: Callable[[], datetime],
        timeout: float = 10.0,
    ) -> None:
        self._server = server
        self._sender = sender
        self._recipients = tuple(recipients)
        self._clock = clock
        self._timeout = timeout

    def send(self, subject: str, text: str, key: str) -> None:
        """Send; equal keys are the same mail (Message-ID). Raises `TransientFailure` or `PermanentFailure`."""
        message = EmailMessage()
        message["From"], message["To"] = self._sender, ", ".join(self._recipients)
        message["Subject"] = subject
        message["Date"] = format_datetime(self._clock())
        message["Message-ID"] = f"<{derive_uuid('mail', key)}@hilum.invalid>"
        message["Auto-Submitted"] = "auto-generated"  # RFC 3834: no holiday notices, please
        message.set_content(text)
        try:
            with self._session() as session:
                refused = session.send_message(message)
        except (smtplib.SMTPException, OSError, ValueError) as error:
            raise self._failure(error) from error
        if refused:
            codes = ", ".join(sorted({str(code) for code, _ in refused.values()}))
            raise PermanentFailure(
                f"{self._server}: it refused {len(refused)} of {len(self._recipients)} recipients ({codes}): mend "
                "recipients of [alarms]"
            )

    @contextlib.contextmanager
    def _session(self) -> Iterator[smtplib.SMTP]:
        server = self._server
        tls = server.tls or ssl.create_default_context()
        if server.security == "tls":
            session: smtplib.SMTP = smtplib.SMTP_SSL(timeout=self._timeout, context=tls)
        else:
            session = smtplib.SMTP(timeout=self._timeout)
        # The name that the certificate must have. Given with the others it would connect, before it can be cut off.
        session._host = server.host  # type: ignore[attr-defined]
        # smtplib waits for each line apart, and a reply may have any number of them.
        watch = threading.Timer(_WHOLE * self._timeout, _cut, [session])
        watch.daemon = True
        watch.start()
        try:
            code, words = session.connect(server.host, server.port)
            if code != 220:
                raise smtplib.SMTPConnectError(code, words)
            if server.security == "starttls":
                session.starttls(context=tls)
            if server.username:
                session.login(server.username, server.password)
            yield session
            with contextlib.suppress(smtplib.SMTPException):  # it has the mail; that it says goodbye is not needed
                session.quit()
        finally:
            watch.cancel()
            session.close()

    def _failure(self, error: Exception) -> DeliveryError:
        if isinstance(error, smtplib.SMTPRecipientsRefused):
            return self._by_code(max(code for code, _ in error.recipients.values()), "recipients")
        if isinstance(error, smtplib.SMTPAuthenticationError):
            return self._by_code(error.smtp_code, "username and password")
        if isinstance(error, smtplib.SMTPResponseException):
            return self._by_code(error.smtp_code, "sender")
        for kind, words in _LASTING:
            if isinstance(error, kind):
                return PermanentFailure(f"{self._server}: {words}")
        for kind, words in _PASSING:
            if isinstance(error, kind):
                return TransientFailure(f"{self._server}: {words}")
        return TransientFailure(f"{self._server}: the mail did not go out ({type(error).__name__}): look at its log")

    def _by_code(self, code: int, key: str) -> DeliveryError:
        """RFC 5321 4.2.1: 4yz passes, 5yz does not. What the server says beside it is not repeated."""
        if code < 500:
            return TransientFailure(f"{self._server}: it takes no mail for now ({code}): look at its log")
        return PermanentFailure(f"{self._server}: it refused the mail ({code}): mend {key} of [alarms]")


_Faults: TypeAlias = tuple[tuple[type[Exception], str], ...]
_LASTING: Final[_Faults] = (
    (ssl.SSLCertVerificationError, "its certificate is not trusted: mend ca_file of [alarms], or the certificate"),
    (smtplib.SMTPNotSupportedError, "it offers no STARTTLS, or no log-in: mend security and username of [alarms]"),
)
_PASSING: Final[_Faults] = (
    (TimeoutError, "no answer in time: is it overloaded, or a firewall between?"),
    (ConnectionRefusedError, "nothing listens there: is it running, is the port right?"),
    (socket.gaierror, "the host name is not known: mend host of [alarms], or the name service"),
    (ssl.SSLError, "TLS failed: mend port or security of [alarms], or look at its log"),
)


def _cut(session: smtplib.SMTP) -> None:
    if session.sock is not None:
        cut_off(session.sock)
