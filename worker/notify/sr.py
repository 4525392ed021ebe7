"""A flag as a structured report, template TID 1500 (PS3.16), by highdicom, in three forms (PS3.3 A.35.1 to A.35.3).

Built from the flag alone; the film's file is not opened. The report says what the site's policy raised, and of the
other films that they were read, or why not. Probabilities that the policy is silent on stay in the record: the report
of a triage device names the findings of its policy and no others.

Comprehensive and Enhanced SR have the same content, for it has no references between its items, which is what
Enhanced SR forbids. Basic Text SR has no NUM: there a probability stands in the words alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from typing import Final, NamedTuple

from highdicom._standard_utils import get_module_attribute_map
from highdicom.sr import (
    AlgorithmIdentification,
    CodeContentItem,
    CodedConcept,
    ComprehensiveSR,
    ContainerContentItem,
    DeviceObserverIdentifyingAttributes,
    Measurement,
    MeasurementReport,
    MeasurementsAndQualitativeEvaluations,
    ObservationContext,
    ObserverContext,
    QualitativeEvaluation,
    SourceImageForMeasurementGroup,
    TextContentItem,
    TrackingIdentifier,
)
from pydicom import dcmread, dcmwrite
from pydicom.config import IGNORE
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.tag import Tag
from pydicom.uid import (
    UID,
    BasicTextSRStorage,
    ComprehensiveSRStorage,
    DigitalXRayImageStorageForPresentation,
    EnhancedSRStorage,
)

from schemas.decision import Reason
from schemas.findings import Code
from schemas.flag import WITHDRAWN, FilmResult, Flag
from schemas.identity import StudyContext
from schemas.not_analysed import WORDS, NotAnalysed
from worker import __version__
from worker.notify.codes import CHEST_FILM, PRIORITY, URGENCY, finding_code
from worker.notify.forms import Form, encode, item, sequence
from worker.notify.study_module import patient_and_study
from worker.notify.uids import derive_uid, sr_instance_uid, sr_series_uid
from worker.notify.wording import NOTHING_RAISED, headline, sentences

# The forms of a report, the richest first.
LADDER: Final = (ComprehensiveSRStorage, EnhancedSRStorage, BasicTextSRStorage)
# High, so that no viewer that sorts by number opens the study with the report in place of the film.
SERIES_NUMBER: Final = 9901
SERIES_DESCRIPTION: Final = "hilum triage, not for diagnosis"

_PRIORITY: Final = CodedConcept(PRIORITY.value, PRIORITY.scheme, PRIORITY.meaning)
_CHEST_FILM: Final = CodedConcept(CHEST_FILM.value, CHEST_FILM.scheme, CHEST_FILM.meaning)
_QUALITATIVE_EVALUATIONS: Final = CodedConcept("C0034375", "UMLS", "Qualitative Evaluations")  # TID 1500, row 12

# Placeholders of the printed forms: keyword of the element, and a value that stands nowhere else in a report.
_GAPS: Final = {
    "device_uid": ("UID", "2.25.4"),
    "device_model": ("TextValue", "?device-model?"),
    "device_serial": ("TextValue", "?device-serial?"),
    "algorithm_name": ("TextValue", "?algorithm-name?"),
    "algorithm_version": ("TextValue", "?algorithm-version?"),
    "algorithm_parameters": ("TextValue", "?algorithm-parameters?"),
    "identifier": ("TextValue", "?identifier?"),
    "uid": ("UID", "2.25.1"),
    "probability": ("NumericValue", "987654321.0"),
    "text": ("TextValue", "?text?"),
    "sop_class": ("ReferencedSOPClassUID", "2.25.2"),
    "sop_uid": ("ReferencedSOPInstanceUID", "2.25.3"),
    **{
        f"{what}_{part}": (keyword, f"?{what[0]}-{part}?")
        for what in ("finding", "priority")
        for part, keyword in (
            ("value", "CodeValue"),
            ("scheme", "CodingSchemeDesignator"),
            ("meaning", "CodeMeaning"),
        )
    },
}


def build_sr(flag: Flag, sop_class: str = ComprehensiveSRStorage) -> Dataset:
    """The report of one revision of a study's urgency, in Explicit VR Little Endian with File Meta Information.

    `sop_class` is one of `LADDER`. Each form is an object of its own, so that a UID never stands for two classes; a
    report names as its predecessor the object that the destination was really sent, whatever its form.

    Equal flags give equal data sets, byte for byte. Dates and times are local to this machine, as a modality's are.
    Text is in UTF-8 (ISO_IR 192), whatever the film was in. Identifiers that a PACS matches by are carried through
    as sent, even where they are longer than their VR allows.
    """
    printed = print_forms()
    sop_uid = sr_instance_uid(flag.study_uid, flag.model_id, flag.revision, sop_class)
    decided = flag.decided_at.astimezone()
    date, time = f"{decided:%Y%m%d}", f"{decided:%H%M%S.%f}"

    document = printed.document[:]  # a data set of its own, of the same elements, still encoded
    document.file_meta = deepcopy(printed.document.file_meta)
    document.file_meta.MediaStorageSOPClassUID = UID(sop_class)
    document.file_meta.MediaStorageSOPInstanceUID = UID(sop_uid)
    elements = {
        **patient_and_study(flag.context),
        "SpecificCharacterSet": "ISO_IR 192",
        "SOPClassUID": sop_class,
        "StudyInstanceUID": flag.study_uid,
        "SeriesInstanceUID": sr_series_uid(flag.study_uid, flag.model_id),
        "SOPInstanceUID": sop_uid,
        "InstanceNumber": str(flag.revision),
        "DeviceSerialNumber": flag.model_id,
        "InstanceCreationDate": date,
        "InstanceCreationTime": time,
        "ContentDate": date,
        "ContentTime": time,
    }
    if flag.withdrawn is not None:
        elements["CompletionFlagDescription"] = f"Flag withdrawn: {WITHDRAWN[flag.withdrawn]}"
    for keyword, value in elements.items():
        # As sent: pydicom would warn of an odd value, and its warning quotes the patient.
        document.add(DataElement(keyword, dictionary_VR(keyword), value, validation_mode=IGNORE))
    document.CurrentRequestedProcedureEvidenceSequence = _references(flag.study_uid, map(_instance, flag.films))
    if flag.predecessor is not None:
        document.PredecessorDocumentsSequence = _references(
            flag.study_uid, [_before(flag, flag.predecessor, sop_class)]
        )
    content = printed.content(flag, numbers=sop_class != BasicTextSRStorage)
    tag = Tag("ContentSequence")
    document[tag] = RawDataElement(tag, "SQ", len(content), content, 0, False, True)
    return document


class _Instance(NamedTuple):
    series_uid: str
    sop_class: str
    sop_uid: str


def _instance(film: FilmResult) -> _Instance:
    return _Instance(film.instance.series_uid, film.instance.sop_class, film.instance.sop_uid)


def _before(flag: Flag, revision: int, sop_class: str) -> _Instance:
    """The report of an earlier revision, in the form in which the destination has it; as far as is known, in this."""
    model_id = flag.predecessor_model_id or flag.model_id
    forms = {sr_instance_uid(flag.study_uid, model_id, revision, form): form for form in (sop_class, *LADDER)}
    sop_uid = flag.predecessor_object_id if flag.predecessor_object_id in forms else next(iter(forms))
    return _Instance(sr_series_uid(flag.study_uid, model_id), forms[sop_uid], sop_uid)


def _references(study_uid: str, instances: Iterable[_Instance]) -> list[Dataset]:
    """One item of the Hierarchical SOP Instance Reference Macro (PS3.3 C.17.2.1)."""
    by_series: dict[str, list[Dataset]] = {}
    for instance in dict.fromkeys(instances):
        reference = Dataset()
        reference.add(DataElement("ReferencedSOPClassUID", "UI", instance.sop_class, validation_mode=IGNORE))
        reference.add(DataElement("ReferencedSOPInstanceUID", "UI", instance.sop_uid, validation_mode=IGNORE))
        by_series.setdefault(instance.series_uid, []).append(reference)
    study = Dataset()
    study.add(DataElement("StudyInstanceUID", "UI", study_uid, validation_mode=IGNORE))
    study.ReferencedSeriesSequence = []
    for series_uid, references in by_series.items():
        series = Dataset()
        series.add(DataElement("SeriesInstanceUID", "UI", series_uid, validation_mode=IGNORE))
        series.ReferencedSOPSequence = references
        study.ReferencedSeriesSequence.append(series)
    return [study]


@dataclass(frozen=True, kw_only=True)
class _Printed:
    """What all reports have in common: a document, and the forms that its content is made of."""

    document: Dataset
    context: Form  # language, observer, procedure reported
    measurements: bytes  # containers without what is in them
    group: bytes
    evaluations: bytes
    finding: Form
    finding_in_words: Form  # without its probability as a number
    tracking: Form  # of a group without a finding
    image: Form
    priority: Form
    comment: Form

    def content(self, flag: Flag, *, numbers: bool) -> bytes:
        """The items of the root's Content Sequence."""
        evaluations = self.priority.fill(**_code("priority", URGENCY[flag.urgency]))
        evaluations += b"".join(self.comment.fill(text=sentence) for sentence in sentences(flag))
        context = self.context.fill(
            device_uid=derive_uid("device", flag.model_id),
            device_model=f"{flag.model_name} {flag.model_version}",
            device_serial=flag.model_id,
        )
        return (
            context
            + _container(self.measurements, b"".join(self._groups(flag, numbers)))
            + _container(self.evaluations, evaluations)
        )

    def _groups(self, flag: Flag, numbers: bool) -> Iterator[bytes]:
        """TID 1501 for every finding that a film was raised for, then the other films by what became of them."""
        if flag.withdrawn is None:
            yield from self._findings(flag, numbers)
        others: dict[NotAnalysed | None, list[FilmResult]] = {}
        for film in flag.films:
            if not film.reasons or flag.withdrawn is not None:
                others.setdefault(film.not_analysed, []).append(film)
        read = NOTHING_RAISED if flag.withdrawn is None else headline(flag)
        for code, films in others.items():
            words = f"Not analysed: {WORDS[code]}" if code else read
            uid = derive_uid("tracking", flag.study_uid, flag.model_id, code or "read")
            tracking = self.tracking.fill(identifier=code.value if code else "read", uid=uid, **_algorithm(flag))
            yield self._group(tracking, words, films)

    def _findings(self, flag: Flag, numbers: bool) -> Iterator[bytes]:
        said = set()
        for film in flag.films:
            for reason in film.reasons:
                said.add(reason.finding)
                yield self._finding(flag, reason, [film], numbers)
        for reason in flag.reasons:
            if reason.finding not in said:  # of a film that has since been read again
                yield self._finding(flag, reason, [], numbers)

    def _finding(self, flag: Flag, reason: Reason, films: Sequence[FilmResult], numbers: bool) -> bytes:
        on = [film.instance.sop_uid for film in films]
        values = {
            "identifier": reason.finding,
            "uid": derive_uid("tracking", flag.study_uid, flag.model_id, reason.finding, *on),
            **_algorithm(flag),
            **_code("finding", finding_code(reason.finding)),
            **_code("priority", URGENCY[reason.urgency]),
        }
        if numbers:
            filled = self.finding.fill(probability=f"{reason.probability:.4f}", **values)
        else:
            filled = self.finding_in_words.fill(**values)
        return self._group(filled, reason.words, films)

    def _group(self, filled: bytes, words: str, films: Sequence[FilmResult]) -> bytes:
        images = b"".join(
            self.image.fill(sop_class=film.instance.sop_class, sop_uid=film.instance.sop_uid)
            for film in films
            if "Image Storage" in UID(film.instance.sop_class).name  # IMAGE refers to images alone, PS3.3 C.17.3.2.3
        )
        return _container(self.group, filled + self.comment.fill(text=words) + images)


@cache
def print_forms() -> _Printed:
    """Build a report of a placeholder study by highdicom and take it apart. Some 100 ms, once in a process."""
    algorithm = AlgorithmIdentification(
        name=_GAPS["algorithm_name"][1],
        version=_GAPS["algorithm_version"][1],
        manufacturer="hilum",
        parameters=[_GAPS["algorithm_parameters"][1]],
        family=codes.cid7162.ArtificialIntelligence,
    )
    tracking = TrackingIdentifier(identifier=_GAPS["identifier"][1], uid=_GAPS["uid"][1])
    group = MeasurementsAndQualitativeEvaluations(
        tracking_identifier=tracking,
        finding_type=_gap_code("finding"),
        algorithm_id=algorithm,
        measurements=[
            Measurement(name=codes.DCM.Probability, value=int(float(_GAPS["probability"][1])), unit=codes.UCUM.NoUnits)
        ],
        qualitative_evaluations=[QualitativeEvaluation(_PRIORITY, _gap_code("priority"))],
    )
    bare = MeasurementsAndQualitativeEvaluations(tracking_identifier=tracking, algorithm_id=algorithm)
    report = MeasurementReport(
        observation_context=ObservationContext(
            observer_device_context=ObserverContext(
                observer_type=codes.DCM.Device,
                observer_identifying_attributes=DeviceObserverIdentifyingAttributes(
                    uid=_GAPS["device_uid"][1],
                    name="hilum",
                    manufacturer_name="hilum",
                    model_name=_GAPS["device_model"][1],
                    serial_number=_GAPS["device_serial"][1],
                ),
            )
        ),
        procedure_reported=_CHEST_FILM,
        imaging_measurements=[group],
        title=codes.DCM.ImagingMeasurementReport,
    )
    document = ComprehensiveSR(
        evidence=[_placeholder_film()],
        content=report,
        series_instance_uid="0.0",
        series_number=SERIES_NUMBER,
        series_description=SERIES_DESCRIPTION,
        sop_instance_uid="0.0",
        instance_number=1,
        manufacturer="hilum",
        manufacturer_model_name="hilum",
        software_versions=__version__,
        device_serial_number="?",
        is_complete=True,
        specific_character_set="ISO_IR 192",
    )
    get_module_attribute_map.cache_clear()  # highdicom's tables of the standard: 60 MiB, and not needed again
    # highdicom signs with the time of day, and the same flag must give the same bytes.
    del document.ContributingEquipmentSequence[0].ContributionDateTime

    *context, measurements = document.ContentSequence
    del document.ContentSequence
    return _Printed(
        document=_reread(document),
        context=_form(context),
        measurements=_shell(measurements),
        group=_shell(group[0]),
        evaluations=encode(ContainerContentItem(_QUALITATIVE_EVALUATIONS, relationship_type="CONTAINS")),
        finding=_form(group[0].ContentSequence),
        finding_in_words=_form(each for each in group[0].ContentSequence if each.ValueType != "NUM"),
        tracking=_form(bare[0].ContentSequence),
        image=_form([SourceImageForMeasurementGroup(_GAPS["sop_class"][1], _GAPS["sop_uid"][1])]),
        priority=_form([CodeContentItem(_PRIORITY, _gap_code("priority"), "CONTAINS")]),
        comment=_form([TextContentItem(codes.DCM.Comment, _GAPS["text"][1], "CONTAINS")]),
    )


def _gap_code(what: str) -> CodedConcept:
    return CodedConcept(*(_GAPS[f"{what}_{part}"][1] for part in ("value", "scheme", "meaning")))


def _code(what: str, code: Code) -> dict[str, str]:
    return {f"{what}_value": code.value, f"{what}_scheme": code.scheme, f"{what}_meaning": code.meaning}


def _algorithm(flag: Flag) -> dict[str, str]:
    return {
        "algorithm_name": flag.model_name,
        "algorithm_version": flag.model_version,
        "algorithm_parameters": f"model id {flag.model_id}",
    }


def _form(content: Iterable[Dataset]) -> Form:
    return Form(b"".join(item(encode(dataset)) for dataset in content), _GAPS)


def _shell(container: Dataset) -> bytes:
    empty = container[:]
    del empty.ContentSequence
    return encode(empty)


def _container(shell: bytes, content: bytes) -> bytes:
    return item(shell + sequence("ContentSequence", content))  # the last element of a container by its tag


def _reread(document: Dataset) -> Dataset:
    """The same document with its elements left encoded, so that they need not be encoded again every time."""
    stream = BytesIO()
    dcmwrite(stream, document)
    return dcmread(BytesIO(stream.getvalue()))


def _placeholder_film() -> Dataset:
    film = Dataset()
    film.StudyInstanceUID = film.SeriesInstanceUID = film.SOPInstanceUID = "2.25.0"
    film.SOPClassUID = DigitalXRayImageStorageForPresentation
    for keyword in patient_and_study(StudyContext()):
        setattr(film, keyword, "")
    return film
