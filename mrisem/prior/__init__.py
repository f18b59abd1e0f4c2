"""The semantic prior: encoders, banks, losses. It sees magnitude images only."""
