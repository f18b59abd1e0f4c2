"""Classical reconstructions with the interface of a network."""
