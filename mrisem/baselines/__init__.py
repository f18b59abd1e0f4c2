"""Classical reconstructions behind a network's interface."""
