"""The DICOM door: associations, negotiation, and C-STORE as a stream of raw bytes."""
