"""Readers of other formats, one file for each format, and conversion to fastMRI's layout."""
