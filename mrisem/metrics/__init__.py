"""Scores of reconstructions: one small function each, and their collection over volumes."""
