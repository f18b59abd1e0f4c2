"""Lightning callbacks: the embedding bank, and the writer of reconstructions."""
