"""Who is told: from `[[destinations]]` to channels, from `[alarms]` to mail. Part of the roof, like `assemble`.

What a kind of destination is made of is imported where one of that kind is configured: no start waits for what the
site does not use.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Final, assert_never

from schemas.errors import ConfigurationError
from schemas.identity import InstanceRef
from worker.corridor.delivery import DeliveryRules
from worker.ports import Channel
from worker.settings import (
    Alarms,
    Destination,
    DicomDestination,
    FhirDestination,
    Hl7Destination,
    OrderDestination,
    OruDestination,
    PaperDestination,
    ScDestination,
    Settings,
    SrDestination,
    UpsDestination,
    WebhookDestination,
)

if TYPE_CHECKING:
    from worker.notify import commitment
    from worker.notify.association import Peer
    from worker.notify.dicom_sc import FilmOf
    from worker.notify.email import Mail
    from worker.notify.hl7_messages import Envelope
    from worker.notify.mllp import MllpPeer
    from worker.notify.oauth import Access

_CLOCK: Final = partial(datetime.now, UTC)


def _no_film(_: InstanceRef) -> None:
    """For a channel that is only asked whether its destination is there."""


def _nobody(_: commitment.Answer) -> int:
    return 0


def channel(
    destination: Destination, settings: Settings, *, film: FilmOf = _no_film, committed: commitment.Told = _nobody
) -> Channel:
    """The channel of one `[[destinations]]` entry; `film` shows it films, `committed` hears what a PACS keeps."""
    match destination:
        case SrDestination() | ScDestination() | UpsDestination():
            return _dicom(destination, settings, film, committed)
        case OruDestination() | OrderDestination():
            return _hl7(destination)
        case FhirDestination():
            return _fhir(destination)
        case WebhookDestination():
            return _webhook(destination)
        case PaperDestination():
            from worker.notify.paper import Paper

            return Paper(name=destination.name, folder=destination.folder)
    assert_never(destination)


def _dicom(
    destination: SrDestination | ScDestination | UpsDestination,
    settings: Settings,
    film: FilmOf,
    committed: commitment.Told,
) -> Channel:
    name, timeout, peer = destination.name, destination.timeout, _peer(destination, settings)
    match destination:
        case SrDestination():
            from worker.notify.dicom_sr import DicomSr

            return DicomSr(name=name, peer=peer, timeout=timeout, reports=_reports(destination, committed))
        case ScDestination():
            from worker.notify.dicom_sc import DicomSc

            return DicomSc(name=name, peer=peer, film=film, timeout=timeout, reports=_reports(destination, committed))
        case UpsDestination():
            from worker.notify.dicom_ups import DicomUps

            return DicomUps(name=name, peer=peer, timeout=timeout)
    assert_never(destination)


def _peer(destination: DicomDestination, settings: Settings) -> Peer:
    from worker.notify.association import Peer

    return Peer(
        ae_title=destination.ae_title,
        host=destination.host,
        port=destination.port,
        calling_ae_title=destination.calling_ae_title or settings.dicom.ae_title,
    )


def _reports(destination: SrDestination | ScDestination, committed: commitment.Told) -> commitment.Reports | None:
    from worker.notify import commitment

    return commitment.Reports(committed) if destination.commitment else None


def _hl7(destination: OruDestination | OrderDestination) -> Channel:
    name, timeout, priority_in = destination.name, destination.timeout, destination.priority_in
    peer, envelope = _mllp_peer(destination), _envelope(destination)
    match destination:
        case OruDestination():
            from worker.notify.hl7_oru import Hl7Oru

            return Hl7Oru(name=name, peer=peer, envelope=envelope, priority_in=priority_in, timeout=timeout)
        case OrderDestination(message=message):
            from worker.notify.hl7_order import Hl7Order

            return Hl7Order(
                name=name, peer=peer, envelope=envelope, message=message, priority_in=priority_in, timeout=timeout
            )
    assert_never(destination)


def _mllp_peer(destination: Hl7Destination) -> MllpPeer:
    from worker.notify.mllp import MllpPeer
    from worker.notify.network import tls_context

    with _naming(destination.name):
        tls = tls_context(destination.ca_file, destination.certificate, destination.key) if destination.tls else None
    return MllpPeer(host=destination.host, port=destination.port, tls=tls)


def _envelope(destination: Hl7Destination) -> Envelope:
    from worker.notify.hl7_messages import Envelope

    return Envelope(
        sending_application=destination.sending_application,
        sending_facility=destination.sending_facility,
        receiving_application=destination.receiving_application,
        receiving_facility=destination.receiving_facility,
        processing_id=destination.processing_id,
        character_set=destination.character_set,
    )


def _fhir(destination: FhirDestination) -> Channel:
    from worker.notify.fhir_channel import Fhir

    return Fhir(
        name=destination.name,
        url=destination.url,
        access=_access(destination),
        patient_system=destination.patient_system,
        tls=_trusting(destination),
        timeout=destination.timeout,
    )


def _access(destination: FhirDestination) -> Access:
    from worker.notify.oauth import ClientCredentials, GivenToken

    if destination.token_url is None or destination.client_secret is None:
        return GivenToken("" if destination.token is None else destination.token.get_secret_value())
    return ClientCredentials(
        destination.token_url,
        client_id=destination.client_id,
        client_secret=destination.client_secret.get_secret_value(),
        scope=destination.scope,
        tls=_trusting(destination),
        timeout=destination.timeout,
    )


def _webhook(destination: WebhookDestination) -> Channel:
    from worker.notify.webhook import Webhook, signing_key

    with _naming(destination.name):
        key = None if destination.secret is None else signing_key(destination.secret.get_secret_value())
    return Webhook(
        name=destination.name,
        url=destination.url,
        key=key,
        identify=destination.identify,
        clock=_CLOCK,
        tls=_trusting(destination),
        timeout=destination.timeout,
    )


def _trusting(destination: FhirDestination | WebhookDestination) -> ssl.SSLContext:
    from worker.notify.network import tls_context

    with _naming(destination.name):
        return tls_context(destination.ca_file, None, None)


@contextmanager
def _naming(name: str) -> Iterator[None]:
    try:
        yield
    except ConfigurationError as error:
        raise ConfigurationError(f"destinations: {name}: {error}") from error


def warm_up(settings: Settings) -> None:
    """Load what takes long and no start should wait for, so that the first flag does not wait for it either.

    That is highdicom and the forms of reports that it prints, a second and a half in all.
    """
    if any(isinstance(destination, SrDestination) for destination in settings.destinations):
        from worker.notify.sr import print_forms

        print_forms()


def delivery_rules(destination: Destination) -> DeliveryRules:
    """The lease outlasts the slowest delivery that succeeds, or it would be sent again for ever.

    That is a kept association that stalls, then connecting, negotiating and storing, then connecting, negotiating and
    asking for Storage Commitment, each within `timeout`.
    """
    rules = DeliveryRules()
    return replace(rules, lease=max(rules.lease, timedelta(seconds=8 * destination.timeout)))


def asked_to_commit(settings: Settings) -> list[SrDestination | ScDestination]:
    """The destinations that are asked for Storage Commitment."""
    return [d for d in settings.destinations if isinstance(d, SrDestination | ScDestination) and d.commitment]


def mail_of(alarms: Alarms) -> Mail | None:
    """Who is told when a flag is late; None where nobody is."""
    if not alarms.host or alarms.sender is None:
        return None
    from worker.notify.email import Mail, MailServer
    from worker.notify.network import tls_context

    try:
        tls = tls_context(alarms.ca_file, None, None)
    except ConfigurationError as error:
        raise ConfigurationError(f"alarms: {error}") from error
    server = MailServer(
        host=alarms.host,
        port=alarms.port,
        security=alarms.security,
        username=alarms.username,
        password="" if alarms.password is None else alarms.password.get_secret_value(),
        tls=tls,
    )
    return Mail(server, sender=alarms.sender, recipients=alarms.recipients, clock=_CLOCK)
