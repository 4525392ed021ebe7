"""Which presentation contexts are accepted (PS3.7 D.3.2, PS3.8 9.3.2.2): what loses nothing.

Every storage class is taken, also one that nobody has heard of: a film that turns out not to be a radiograph is kept
and listed as not analysed, and that is better than a modality whose queue stands still.
"""

from __future__ import annotations

from collections.abc import Collection
from functools import lru_cache
from typing import Final, TypeAlias

from pydicom._uid_dict import UID_dictionary
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom.presentation import AllStoragePresentationContexts, PresentationContext
from pynetdicom.sop_class import Verification

# Each proposed presentation context: its abstract syntax, and its transfer syntaxes as the sender orders them.
Proposal: TypeAlias = tuple[tuple[str, tuple[str, ...]], ...]

_STORAGE: Final = frozenset(str(context.abstract_syntax) for context in AllStoragePresentationContexts)
_DICOM_ROOT: Final = "1.2.840.10008."
_STORAGE_ROOT: Final = _DICOM_ROOT + "5.1.4.1.1."
# Of what is no film: an identifier or a step is never compressed, and nobody speaks Big Endian alone (PS3.5 10.1).
_PLAIN: Final = (str(ImplicitVRLittleEndian), str(ExplicitVRLittleEndian))
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


def known_storage() -> list[str]:
    """SOP classes known here under which instances may be stored; those that are not known are taken as well."""
    dictionary = {uid for uid, entry in UID_dictionary.items() if entry[1] == "SOP Class"}
    return sorted(uid for uid in dictionary | _STORAGE if is_storage(uid))


@lru_cache(maxsize=32)
def contexts_for(
    proposal: Proposal, transfer_syntaxes: tuple[str, ...], services: frozenset[str]
) -> list[PresentationContext]:
    """What to accept of `proposal`: one context per SOP class, its syntaxes in the sender's order.

    The list is shared (a sender proposes the same for each film): not to be changed.

    Parameters
    ----------
    transfer_syntaxes:
        UIDs that can be decoded.
    services:
        SOP classes besides Verification and storage.
    """
    accepted: dict[str, dict[str, None]] = {}
    for abstract_syntax, offered in proposal:
        if abstract_syntax == Verification or abstract_syntax in services or is_storage(abstract_syntax):
            taken = _PLAIN if abstract_syntax in services else transfer_syntaxes
            usable = (syntax for syntax in offered if syntax in taken)
            accepted.setdefault(abstract_syntax, {}).update(dict.fromkeys(usable))
    contexts = []
    for abstract_syntax, syntaxes in accepted.items():
        context = PresentationContext()
        context.abstract_syntax = abstract_syntax
        context.transfer_syntax = list(syntaxes)
        if abstract_syntax in services:
            # Whichever role the peer asks for (PS3.7 D.3.3.4): who reports on our Storage Commitment comes as its SCP.
            context.scu_role = context.scp_role = True
        contexts.append(context)
    return contexts


def refused(proposal: Proposal, taken: Collection[str], transfer_syntaxes: tuple[str, ...]) -> list[tuple[str, str]]:
    """What an accepted association may nevertheless not send: (what, mend) in words.

    A class that was `taken` in another syntax is not named: such a sender has lost nothing.
    """
    classes: dict[str, None] = {}
    syntaxes: dict[str, None] = {}
    for abstract_syntax, offered in proposal:
        if abstract_syntax in taken:
            continue
        if is_storage(abstract_syntax):
            syntaxes.update(dict.fromkeys(syntax for syntax in offered if syntax not in transfer_syntaxes))
        else:
            classes[abstract_syntax] = None
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


def _names(uids: Collection[str]) -> str:
    names = [UID(uid).name for uid in uids]
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more
