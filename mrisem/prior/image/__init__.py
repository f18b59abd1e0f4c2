"""Image route: embeddings of a vision encoder are compared with a bank."""
