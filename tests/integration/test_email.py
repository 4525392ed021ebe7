"""Alarms to a mail server that nobody here wrote (aiosmtpd), and to some that mean no good."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from email import message_from_bytes, policy
from pathlib import Path
from typing import Any

import pytest
import trustme
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

from schemas.errors import DeliveryError, PermanentFailure, TransientFailure
from tests.contract.record.given import NOW, Record, read
from worker.assemble import Role, Worker, database, mail_of
from worker.notify.email import Mail, MailServer
from worker.notify.network import tls_context
from worker.settings import Alarms, Settings, SpoolSettings
from worker.settings import Database as DatabaseSettings

TO = ("admin@hospital.example", "duty@hospital.example")


class Mailbox:
    """Takes mails; says `recipient` to each recipient and `answer` to each mail."""

    def __init__(self) -> None:
        self.mails: list[Any] = []
        self.recipient = "250 OK"
        self.answer = "250 OK"

    async def handle_RCPT(self, server: SMTP, session: Session, envelope: Envelope, to: str, options: object) -> str:
        if self.recipient.startswith("250"):
            envelope.rcpt_tos.append(to)
        return self.recipient

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        if self.answer.startswith("250"):
            assert isinstance(envelope.content, bytes)
            self.mails.append(message_from_bytes(envelope.content, policy=policy.default))
        return self.answer


def authenticate(server: SMTP, session: Session, envelope: Envelope, mechanism: str, data: object) -> AuthResult:
    known = isinstance(data, LoginPassword) and (data.login, data.password) == (b"hilum", b"secret")
    return AuthResult(success=known, handled=known)


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def tls_of_server(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(context)
    return context


@pytest.fixture
def trusting(authority: trustme.CA, tmp_path: Path) -> ssl.SSLContext:
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    return tls_context(tmp_path / "ca.pem", None, None)


@pytest.fixture
def mailbox() -> Mailbox:
    return Mailbox()


Serve = Callable[..., int]


@pytest.fixture
def serve(mailbox: Mailbox) -> Iterator[Serve]:
    """Starts an aiosmtpd and gives its port."""
    running: list[Controller] = []

    def start(**options: Any) -> int:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = int(free.getsockname()[1])
        controller = Controller(mailbox, hostname="127.0.0.1", port=port, server_hostname="localhost", **options)
        controller.start()
        running.append(controller)
        return port

    yield start
    for controller in running:
        controller.stop()


def mail(port: int, *, timeout: float = 5.0, **server: Any) -> Mail:
    return Mail(
        MailServer(host="localhost", port=port, **{"security": "none", **server}),
        sender="hilum@hospital.example",
        recipients=TO,
        clock=lambda: datetime(2026, 3, 1, 12, 0, tzinfo=UTC),
        timeout=timeout,
    )


def test_a_mail_arrives_as_it_was_written(serve: Serve, mailbox: Mailbox) -> None:
    mail(serve()).send("hilum: 3 flags wait", "Since 10:05.\n.\nÄrger.\n", "late ris")
    (arrived,) = mailbox.mails
    assert (arrived["Subject"], arrived["To"]) == ("hilum: 3 flags wait", ", ".join(TO))
    assert arrived.get_content().replace("\r\n", "\n") == "Since 10:05.\n.\nÄrger.\n"
    assert arrived["Auto-Submitted"] == "auto-generated"


def test_the_same_news_are_the_same_mail(serve: Serve, mailbox: Mailbox) -> None:
    sender = mail(serve())
    for key in ("late ris", "late ris", "over ris"):
        sender.send("hilum", "text", key)
    first, second, third = (arrived["Message-ID"] for arrived in mailbox.mails)
    assert first == second != third


@pytest.mark.parametrize("security", ["starttls", "tls"])
def test_over_tls_with_a_password(
    serve: Serve, mailbox: Mailbox, tls_of_server: ssl.SSLContext, trusting: ssl.SSLContext, security: str
) -> None:
    # aiosmtpd offers a log-in only where it knows that TLS is there: with STARTTLS, or when told not to ask.
    options: dict[str, Any] = {"authenticator": authenticate, "auth_required": True}
    if security == "tls":
        port = serve(ssl_context=tls_of_server, auth_require_tls=False, **options)
    else:
        port = serve(tls_context=tls_of_server, require_starttls=True, **options)
    known = {"security": security, "username": "hilum", "tls": trusting}
    mail(port, password="secret", **known).send("hilum", "text", "key")
    assert len(mailbox.mails) == 1
    with pytest.raises(PermanentFailure, match=r"535.*mend username and password"):
        mail(port, password="wrong", **known).send("hilum", "text", "key")


@pytest.mark.parametrize("security", ["starttls", "tls"])
def test_a_certificate_of_another_authority(serve: Serve, tls_of_server: ssl.SSLContext, security: str) -> None:
    port = serve(**{"ssl_context" if security == "tls" else "tls_context": tls_of_server})
    with pytest.raises(PermanentFailure, match="not trusted"):
        mail(port, security=security).send("hilum", "text", "key")


def test_no_tls_where_it_is_asked_for_sends_nothing(serve: Serve, mailbox: Mailbox) -> None:
    port = serve()
    with pytest.raises(PermanentFailure, match="no STARTTLS"):
        mail(port, security="starttls").send("hilum", "text", "key")
    with pytest.raises(DeliveryError, match="TLS failed"):
        mail(port, security="tls").send("hilum", "text", "key")
    assert mailbox.mails == []


@pytest.mark.parametrize(
    ("recipient", "answer", "failure", "words"),
    [
        ("550 who?", "250 OK", PermanentFailure, "550.*mend recipients"),
        ("450 Doe^Jane", "250 OK", TransientFailure, "450"),
        ("250 OK", "554 Doe^Jane", PermanentFailure, "554.*mend sender"),
        ("250 OK", "451 later", TransientFailure, "451"),
    ],
)
def test_what_answers_mean(
    serve: Serve, mailbox: Mailbox, recipient: str, answer: str, failure: type[DeliveryError], words: str
) -> None:
    mailbox.recipient, mailbox.answer = recipient, answer
    with pytest.raises(failure, match=words) as raised:
        mail(serve()).send("hilum", "text", "key")
    assert "Doe" not in str(raised.value)


def test_nobody_is_there() -> None:
    with pytest.raises(TransientFailure, match="nothing listens there"):
        mail(1).send("hilum", "text", "key")


@pytest.mark.parametrize(
    "talk",
    [b"", b"220-and so on\r\n", b"220 ", b"\x00\xff\r\n", b"554 no\r\n", b"HTTP/1.1 400 Bad Request\r\n\r\n"],
    ids=["silent", "a greeting without end", "half a greeting", "noise", "no service", "another protocol"],
)
def test_a_server_that_means_no_good_ends_in_time(talk: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            connection, _ = listening.accept()
            with connection:
                until = time.monotonic() + 10
                try:
                    while time.monotonic() < until:
                        connection.sendall(talk)
                        time.sleep(0.01)
                except OSError:
                    return

        threading.Thread(target=serve, daemon=True).start()
        began = time.monotonic()
        with pytest.raises(DeliveryError):
            mail(listening.getsockname()[1], timeout=0.5).send("hilum", "text", "key")
        assert time.monotonic() - began < 6


def test_the_settings_make_a_mail_or_none(serve: Serve, mailbox: Mailbox) -> None:
    assert mail_of(Alarms()) is None
    made = mail_of(
        Alarms(host="127.0.0.1", port=serve(), security="none", sender="hilum@hospital.example", recipients=list(TO))
    )
    assert made is not None
    made.send("hilum", "text", "key")
    assert len(mailbox.mails) == 1


def test_the_worker_mails_of_a_flag_that_is_late_and_names_nobody(
    serve: Serve, mailbox: Mailbox, tmp_path: Path
) -> None:
    settings = Settings(
        database=DatabaseSettings(url=f"sqlite:///{tmp_path}/hilum.db"),
        spool=SpoolSettings(path=tmp_path / "spool"),
        alarms=Alarms(
            after_seconds=60,
            host="127.0.0.1",
            port=serve(),
            security="none",
            sender="hilum@hospital.example",
            recipients=list(TO),
            state=tmp_path / "alarms.json",
        ),
    )
    database(settings).migrate()
    worker = Worker(settings, [Role.UPKEEP])
    record = Record(worker.database, settings.database.url)
    record.film(1, outcome=read(0.9))  # of a patient whom the record knows by name, long ago
    record.outbox.retry(record.deliver().id, "courier", "pacs:104: nothing listens there", NOW)
    worker.start()
    try:
        until = time.monotonic() + 30
        while not mailbox.mails and time.monotonic() < until:
            time.sleep(0.05)
    finally:
        worker.stop()
    (arrived,) = mailbox.mails
    assert "1 flag waits for destination pacs" in arrived["Subject"]
    assert "nothing listens there" in arrived.get_content()
    assert "Phantom" not in arrived.as_string()
    assert "1.2.3.1" not in arrived.as_string()
