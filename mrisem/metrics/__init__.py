"""Scores of reconstructions: one small function each, and the collection that knows volumes."""
