"""Semantic prior: encoders, banks and losses; it sees magnitude images only."""
