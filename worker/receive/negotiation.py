"""Which presentation contexts are accepted (PS3.7 D.3.2, PS3.8 9.3.2.2): what loses nothing.

Every storage class is taken, also one that nobody has heard of: a film that turns out not to be a radiograph is kept
and listed as not analysed, and that is better than a modality whose queue stands still.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from pydicom.uid import UID
from pynetdicom.presentation import AllStoragePresentationContexts, PresentationContext
from pynetdicom.sop_class import Verification

_STORAGE: Final = frozenset(str(context.abstract_syntax) for context in AllStoragePresentationContexts)
_DICOM_ROOT: Final = "1.2.840.10008."
_STORAGE_ROOT: Final = _DICOM_ROOT + "5.1.4.1.1."
_NAMED: Final = 8  # as many names as a remark gives before it says how many more there are


def is_storage(abstract_syntax: str) -> bool:
    """Whether instances may be stored under `abstract_syntax`: known, retired, private, or newer than pynetdicom."""
    if abstract_syntax in _STORAGE:
        return True
    uid = UID(abstract_syntax)
    if not abstract_syntax.startswith(_DICOM_ROOT):
        return True
    if not uid.type:  # not in pydicom's dictionary
        return abstract_syntax.startswith(_STORAGE_ROOT)
    return uid.type == "SOP Class" and abstract_syntax.startswith(_STORAGE_ROOT) and "Storage" in uid.name


def contexts_for(
    proposed: Iterable[PresentationContext], transfer_syntaxes: Sequence[str], services: frozenset[str] = frozenset()
) -> list[PresentationContext]:
    """What to accept of `proposed`: one context per SOP class, its syntaxes in the sender's order.

    Parameters
    ----------
    transfer_syntaxes:
        UIDs that can be decoded.
    services:
        SOP classes besides Verification and storage.
    """
    usable = frozenset(transfer_syntaxes)
    accepted: dict[str, dict[str, None]] = {}
    for context in proposed:
        name = str(context.abstract_syntax)
        if name == Verification or name in services or is_storage(name):
            syntaxes = accepted.setdefault(name, {})
            syntaxes.update(dict.fromkeys(s for s in map(str, context.transfer_syntax) if s in usable))
    contexts = []
    for name, syntaxes in accepted.items():
        context = PresentationContext()
        context.abstract_syntax = name
        context.transfer_syntax = list(syntaxes)
        contexts.append(context)
    return contexts


def refused(
    proposed: Iterable[PresentationContext], accepted: Iterable[PresentationContext], transfer_syntaxes: Sequence[str]
) -> list[tuple[str, str]]:
    """What an accepted association may nevertheless not send: (what, mend) in words.

    A syntax is named only where the class was proposed with no other: a sender that also offers one that we take
    has lost nothing.
    """
    taken = {str(context.abstract_syntax) for context in accepted}
    classes: dict[str, None] = {}
    syntaxes: dict[str, None] = {}
    for context in proposed:
        name = str(context.abstract_syntax)
        if name in taken:
            continue
        offered = [s for s in map(str, context.transfer_syntax) if s not in transfer_syntaxes]
        if is_storage(name):
            syntaxes.update(dict.fromkeys(offered))
        else:
            classes[name] = None
    remarks = []
    if classes:
        remarks.append((f"SOP class refused: {_names(classes)}", "let the sender use this AE title for storage only"))
    if syntaxes:
        remarks.append(
            (
                f"transfer syntax refused: {_names(syntaxes)}",
                "let the sender offer Explicit VR Little Endian as well, or JPEG, JPEG-LS, JPEG 2000 or RLE",
            )
        )
    return remarks


def _names(uids: Iterable[str]) -> str:
    names = [UID(uid).name for uid in uids]
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more
