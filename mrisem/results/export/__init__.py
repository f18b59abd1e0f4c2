"""Reconstructions in the formats of other programs: NIfTI, DICOM, ISMRMRD; one file a format."""
