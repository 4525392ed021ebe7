"""From a DICOM file to the grey image that a radiologist would see, or to the coded reason why not."""
