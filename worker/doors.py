"""What is open to others: from `[dicom]`, `[worklist]` and `[hl7]` to what the listeners take. Part of the roof.

What is behind a door is imported when that door is made: a command that only looks at the record needs none of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from worker.settings import Hl7Destination, Settings, phrase

if TYPE_CHECKING:
    from worker.receive.hl7_content import Rules
    from worker.receive.hl7_listener import Hl7ListenerConfig
    from worker.receive.listener import ExtraHandler, ListenerConfig
    from worker.record.reading_list import ReadingList
    from worker.worklist.window import Window


def listener_config(settings: Settings) -> ListenerConfig:
    """The listener's own view of `[dicom]`."""
    from worker.receive.access import Caller, LocalAE
    from worker.receive.listener import ListenerConfig

    dicom = settings.dicom
    accept = tuple(Caller(ae_title=c.ae_title, address=c.address) for c in dicom.accept)
    further = tuple(
        LocalAE(
            ae_title=ae.ae_title,
            order_urgency=ae.order_urgency,
            accept=tuple(Caller(ae_title=c.ae_title, address=c.address) for c in ae.accept) or accept,
        )
        for ae in dicom.also
    )
    return ListenerConfig(
        host=dicom.host,
        port=dicom.port,
        local_aes=(LocalAE(ae_title=dicom.ae_title, accept=accept), *further),
        max_associations=dicom.max_associations,
        max_pdu=dicom.max_pdu,
        network_timeout=dicom.network_timeout,
        acse_timeout=dicom.acse_timeout,
        dimse_timeout=dicom.dimse_timeout,
    )


def dicom_windows(settings: Settings, reading_list: ReadingList) -> list[Window]:
    """What others may look at on the DICOM port."""
    windows: list[Window] = []
    if settings.worklist.mwl:
        from worker.worklist.mwl_scp import modality_worklist

        windows.append(modality_worklist(reading_list.open))
    if settings.worklist.ups:
        from worker.notify.uids import derive_uid
        from worker.worklist.ups_scp import UpsWindow

        windows.append(UpsWindow(reading_list.open, partial(derive_uid, "ups-window")))
    return windows


def step_handlers(windows: Sequence[Window]) -> list[ExtraHandler]:
    """What is said of a procedure step besides C-FIND."""
    from worker.receive.listener import ExtraHandler
    from worker.worklist.ups_scp import UpsWindow

    return [
        ExtraHandler(window.sop_classes, event, handler)
        for window in windows
        if isinstance(window, UpsWindow)
        for event, handler in window.handlers()
    ]


def hl7_config(settings: Settings) -> Hl7ListenerConfig:
    """The listener's own view of `[hl7]`. Raises `ConfigurationError`."""
    from worker.receive.hl7_listener import Hl7ListenerConfig, tls_server

    hl7 = settings.hl7
    tls = None
    if hl7.tls and hl7.certificate is not None:
        tls = tls_server(hl7.certificate, hl7.key, hl7.ca_file)
    return Hl7ListenerConfig(
        host=hl7.host,
        port=hl7.port,
        accept=hl7.accept,
        max_connections=hl7.max_connections,
        max_message=hl7.max_message_kib << 10,
        message_seconds=hl7.message_seconds,
        idle_seconds=hl7.idle_seconds,
        tls=tls,
    )


def hl7_rules(settings: Settings) -> Rules:
    """How messages are understood, by `[hl7]`; what we send ourselves is known by its sending application."""
    from worker.receive.hl7_content import Rules
    from worker.receive.report_verdict import VerdictRules

    hl7 = settings.hl7
    ours = {d.sending_application.partition("^")[0] for d in settings.destinations if isinstance(d, Hl7Destination)}
    return Rules(
        processing_id=hl7.processing_id,
        accession_in=hl7.accession_in,
        own_applications=frozenset({"HILUM", *ours}) - {""},
        verdicts=VerdictRules(
            positive=[phrase(p) for p in hl7.positive],
            negative=[phrase(p) for p in hl7.negative],
            codes={coded.code: coded.finding for coded in hl7.codes},
        ),
    )
