"""Export of reconstructions as NIfTI, DICOM and ISMRMRD, one module for each format."""
