"""Lightning callbacks: priors, writers of reconstructions and checkpoints, logging, signals."""
