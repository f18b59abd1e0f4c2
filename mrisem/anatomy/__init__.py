"""Simulated anatomy: brain and knee images with tissue contrast."""
