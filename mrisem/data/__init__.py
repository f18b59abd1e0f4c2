"""fastMRI HDF5 files to batches."""
