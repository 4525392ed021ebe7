"""Orthanc as the hospital's PACS: it forwards a study in, receives the SR, and gives it back over REST."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import pydicom

from tests.acceptance.harness import Hilum, free_port, until
from tests.orthanc import Orthanc


def test_a_study_goes_in_and_its_report_comes_back(films: Path, tmp_path: Path) -> None:
    dicom_port = free_port()
    orthanc = Orthanc(tmp_path / "orthanc", ae_title="PACS", modalities={"hilum": ("HILUM", "127.0.0.1", dicom_port)})
    hilum = Hilum(tmp_path / "hilum", orthanc.port, dicom_port=dicom_port)
    try:
        hilum.start()
        film = next((films / "dicom" / "nih_rsna").glob("*.dcm"))
        study_uid = str(pydicom.dcmread(film, stop_before_pixels=True).StudyInstanceUID)
        uploaded = orthanc.post("/instances", film.read_bytes())
        orthanc.post("/modalities/hilum/store", uploaded["ID"])

        def reports() -> list[dict[str, object]]:
            found = orthanc.instances_of(study_uid)
            return [i for i in found if orthanc.get(f"/instances/{i['ID']}/simplified-tags")["Modality"] == "SR"]

        (report,) = until("the report in Orthanc", reports, 30)
        dataset = pydicom.dcmread(BytesIO(orthanc.get_bytes(f"/instances/{report['ID']}/file")))
        story = hilum.results(study_uid)
        assert dataset.StudyInstanceUID == study_uid
        assert story["deliveries"][0]["object_id"] == dataset.SOPInstanceUID
        assert story["deliveries"][0]["state"] == "sent"

        # Sent again by a person's wish, it is the same object there.
        hilum.run("replay", "--study", study_uid)
        until("the replay", lambda: hilum.results(study_uid)["deliveries"][0]["attempts"] >= 2, 30)
        assert len(reports()) == 1
        # The same film once more is no news.
        orthanc.post("/modalities/hilum/store", uploaded["ID"])
        assert hilum.results(study_uid)["revision"] == 1
        assert "[bold" not in hilum.run("check").stdout
    finally:
        hilum.stop()
        orthanc.stop()
