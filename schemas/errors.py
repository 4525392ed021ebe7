"""The error tree. Every leaf says who must act, and at the DICOM door which status it answers.

HilumError
├── ConfigurationError          the administrator mends the configuration
├── ReceiveError                answered to the modality, see STATUS_OF
│   ├── SpoolFull               disk below its watermark
│   ├── WrongSopClass           command set and data set name different SOP classes
│   └── Unreadable              identity missing or unusable
├── MessageRefused              answered to the sender of an HL7 v2 message, which will never be taken as it is
├── NotAnalysable               the film is recorded as not analysed, with a coded reason
│   └── Undecodable             no decoder could make pixels of it
├── ModelError                  the worker refuses to start
│   ├── BundleInvalid           a file of the bundle is missing or does not match its hash
│   ├── RecipeMismatch          the bundle was trained on another tensor recipe
│   └── GoldenMismatch          the replayed golden vectors differ
├── OutOfMemory                 the runtime could not hold the batch
├── SpoolError                  stored bytes are missing or are not what was stored
├── RecordError                 the database said no
│   └── LeaseLost               another worker holds the job now
└── DeliveryError
    ├── TransientFailure        try again later
    └── PermanentFailure        trying again changes nothing; a person must mend it
"""

from __future__ import annotations

from schemas.not_analysed import NotAnalysed
from schemas.scanner import Scanner


class HilumError(Exception):
    """Root of every error that hilum raises on purpose."""


class ConfigurationError(HilumError):
    """The configuration is wrong; the message lists every fault with its key."""


class ReceiveError(HilumError):
    """An instance was not accepted; the sender keeps it."""


class SpoolFull(ReceiveError):
    """Free space is below the watermark, or the disk refused the bytes."""


class WrongSopClass(ReceiveError):
    """The data set is not of the SOP class that the command set names."""


class Unreadable(ReceiveError):
    """The identity of the instance is missing, malformed or contradictory."""


class MessageRefused(HilumError):
    """An HL7 v2 message that will never be taken as it is; the message names the fault, never what stands in it.

    Parameters
    ----------
    condition:
        Code of table 0357.
    location:
        Segment and field that the fault is in, e.g. "MSH^1^12"; empty for the whole message.
    """

    def __init__(self, condition: str, words: str, location: str = "") -> None:
        super().__init__(words)
        self.condition = condition
        self.location = location


class NotAnalysable(HilumError):
    """The film must not be scored.

    Parameters
    ----------
    code:
        The documented reason.
    detail:
        A short technical remark for the administrator; never patient data.
    """

    def __init__(self, code: NotAnalysed, detail: str = "") -> None:
        super().__init__(f"{code.value}: {detail}" if detail else code.value)
        self.code = code
        self.detail = detail
        self.scanner: Scanner | None = None  # where the film's header could be read


class Undecodable(NotAnalysable):
    """No installed decoder makes pixels of the film. Permanent."""

    def __init__(self, detail: str = "") -> None:
        super().__init__(NotAnalysed.UNREADABLE, detail)


class ModelError(HilumError):
    """The model must not be served."""


class BundleInvalid(ModelError):
    """A file of the bundle is missing, unreadable or does not match its hash."""


class RecipeMismatch(ModelError):
    """The bundle was trained on tensors that this worker does not make."""


class GoldenMismatch(ModelError):
    """The golden inputs do not give the golden outputs."""


class OutOfMemory(HilumError):
    """The runtime could not hold the batch."""


class SpoolError(HilumError):
    """Bytes that were stored are missing, or are not the bytes that were stored."""


class RecordError(HilumError):
    """The database refused."""


class LeaseLost(RecordError):
    """The lease lapsed and the job belongs to another worker now."""


class DeliveryError(HilumError):
    """A destination did not take a flag. The message names the fault and the mend."""


class TransientFailure(DeliveryError):
    """A passing fault: the outbox tries again."""


class PermanentFailure(DeliveryError):
    """Trying again changes nothing until a person mends something."""


STATUS_OF: dict[type[HilumError], int] = {
    SpoolFull: 0xA700,  # Refused: Out of Resources              PS3.4 B.2.3
    RecordError: 0xA700,  # the row could not be committed: the sender keeps the film
    WrongSopClass: 0xA900,  # Error: Data Set does not match SOP Class
    Unreadable: 0xC000,  # Error: Cannot understand
}


def status_of(error: BaseException) -> int:
    """DIMSE C-STORE status for an error; what is unknown never answers Success (PS3.4 B.2.3)."""
    for kind in type(error).__mro__:
        if kind in STATUS_OF:
            return STATUS_OF[kind]
    return 0xC001
