"""Scans of other formats: one reader a format, and their conversion to fastMRI's layout."""
