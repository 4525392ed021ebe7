from __future__ import annotations

from io import BytesIO

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pynetdicom.dsutils import encode as encode_by_pynetdicom

from worker.notify.forms import Form, element, encode, item, sequence


@pytest.mark.parametrize(
    ("keyword", "text"),
    [
        ("CodeValue", "1"),
        ("CodeMeaning", "odd"),
        ("UID", "1.2.3"),
        ("ReferencedSOPInstanceUID", "1.2.34"),
        ("NumericValue", "0.9"),
        ("TextValue", "x" * 70_001),
    ],
)
def test_an_element_is_encoded_as_pydicom_does(keyword: str, text: str) -> None:
    dataset = Dataset()
    setattr(dataset, keyword, text)
    assert element(keyword, text) == encode_by_pynetdicom(dataset, False, True)


def test_text_is_utf8() -> None:
    assert element("TextValue", "胸").endswith("胸".encode() + b" ")


def test_an_unknown_keyword_is_an_error() -> None:
    with pytest.raises((ValueError, KeyError)):
        element("NoSuchKeyword", "x")


def test_a_filled_form_reads_back_as_the_data_set_it_was_made_of() -> None:
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = "?value?", "SCT", "?meaning?"
    content = Dataset()
    content.ValueType = "CODE"
    content.ConceptCodeSequence = [code]
    form = Form(encode(content), {"value": ("CodeValue", "?value?"), "meaning": ("CodeMeaning", "?meaning?")})
    filled = form.fill(value="36118008", meaning="Pneumothorax")
    nested = sequence("ContentSequence", item(filled) + item(filled))

    read = dcmread(BytesIO(nested), force=True)
    assert [
        (c.ConceptCodeSequence[0].CodeValue, c.ConceptCodeSequence[0].CodeMeaning) for c in read.ContentSequence
    ] == [("36118008", "Pneumothorax")] * 2
    assert read.ContentSequence[0].ValueType == "CODE"


@pytest.mark.parametrize("values", [{}, {"text": "a", "more": "b"}, {"more": "b"}])
def test_a_form_takes_exactly_its_gaps(values: dict[str, str]) -> None:
    dataset = Dataset()
    dataset.TextValue = "?text?"
    form = Form(encode(dataset), {"text": ("TextValue", "?text?"), "more": ("UID", "2.25.9")})
    with pytest.raises(ValueError, match="gaps and values differ"):
        form.fill(**values)
