"""What `worker.receive.transport` takes from pynetdicom without a promise: fails first when a release changes it.

When one of these fails after an upgrade, read the changed method, compare it with its override, and only then mend the
fingerprint here.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import textwrap
from collections.abc import Callable

import pytest
from pynetdicom import evt
from pynetdicom.ae import ApplicationEntity
from pynetdicom.association import Association
from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.dimse_messages import DIMSEMessage
from pynetdicom.dul import DULServiceProvider
from pynetdicom.events import NotificationEvent
from pynetdicom.fsm import TRANSITION_TABLE
from pynetdicom.transport import AssociationServer, AssociationSocket, RequestHandler

# Overridden in worker.receive.transport, or relied on there beyond their documentation.
FINGERPRINTS: dict[str, tuple[Callable[..., object], str]] = {
    function.__qualname__: (function, fingerprint)
    for function, fingerprint in [
        (Association.__init__, "31da48213cba"),
        (Association._bind_defaults, "e85cf6229236"),
        (Association._abort_blocking, "3a00262dd3cb"),
        (Association._run_reactor, "923d0625edfb"),
        (Association._serve_request, "4c7e060166a1"),
        (Association.kill, "db2a441714d9"),
        (Association.run_reactor, "dd6a6e925ce8"),
        (DULServiceProvider.__init__, "589f3beeece2"),
        (DULServiceProvider._decode_pdu, "9ff977fd0e55"),
        (DULServiceProvider._process_recv_primitive, "b2913aacd2dd"),
        (DULServiceProvider._read_pdu_data, "b464daf039f8"),
        (DULServiceProvider._send, "251bfb4142a5"),
        (DULServiceProvider.kill_dul, "24b3f412a3a5"),
        (DULServiceProvider.receive_pdu, "91ed9b30bf70"),
        (DULServiceProvider.run_reactor, "7afc57a60113"),
        (DULServiceProvider.send_pdu, "64f27efea8ad"),
        (DULServiceProvider.stop_dul, "06616eca8a19"),
        (DIMSEServiceProvider.__init__, "b1a3e6d83982"),
        (DIMSEServiceProvider.get_msg, "1d0eb59a1b3d"),
        (DIMSEServiceProvider.receive_primitive, "3753d6790c54"),
        (DIMSEMessage.decode_msg, "cf9f1974ac5d"),
        (DIMSEMessage.message_to_primitive, "1060aad44f2c"),
        (AssociationSocket.__init__, "b41f4a41a8b5"),
        (AssociationSocket._shutdown_socket, "2fa755230969"),
        (AssociationSocket.close, "30279eeefaa8"),
        (AssociationSocket.send, "e0e88e4b89b7"),
        (RequestHandler._create_association, "0c0f35b80113"),
        (RequestHandler.handle, "1f005e2c9035"),
        (AssociationServer.__init__, "e166dd166577"),
        (AssociationServer._bind_defaults, "e85cf6229236"),
        (AssociationServer.get_request, "017f43b44b13"),
        (AssociationServer.process_request, "b93da56272d5"),
        (AssociationServer.server_close, "5356b7926ad3"),
        (AssociationServer.service_actions, "7f2ba6b6bde6"),
        (AssociationServer.shutdown, "0298ace86cb8"),
        (ApplicationEntity.make_server, "477fad03370b"),
        (evt.trigger, "b0bf6555d666"),
    ]
}


def fingerprint_of(function: Callable[..., object]) -> str:
    """Of the code alone: without comments, docstring and layout."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    body = tree.body[0]
    assert isinstance(body, ast.FunctionDef)
    if ast.get_docstring(body) is not None:
        body.body = body.body[1:] or [ast.Pass()]
    return hashlib.sha256(ast.unparse(tree).encode()).hexdigest()[:12]


@pytest.mark.parametrize("name", FINGERPRINTS)
def test_pynetdicoms_code_is_what_ours_was_written_for(name: str) -> None:
    function, fingerprint = FINGERPRINTS[name]
    assert fingerprint_of(function) == fingerprint, f"pynetdicom changed {name}: compare with worker.receive.transport"


def test_the_state_machine_knows_the_events_that_are_put_by_hand() -> None:
    # Closed (Evt17), invalid (Evt19), ARTIM (Evt18), P-DATA out of place (Evt10), request (Evt6).
    waiting = {"Sta2", "Sta3", "Sta6", "Sta8", "Sta13"}
    for event, states in {
        "Evt6": {"Sta2"},
        "Evt10": waiting,
        "Evt17": waiting,
        "Evt18": {"Sta2", "Sta13"},
        "Evt19": waiting,
    }.items():
        assert {state for (known, state) in TRANSITION_TABLE if known == event} >= states


def test_events_before_negotiation_can_still_refuse() -> None:
    for event in (evt.EVT_REQUESTED, evt.EVT_ACCEPTED):
        assert isinstance(event, NotificationEvent)
