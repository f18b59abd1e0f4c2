"""The configuration: its typed schema, its checks, and how it is composed. Imports no torch."""
