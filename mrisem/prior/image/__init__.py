"""The image route: embeddings of a vision encoder, compared with a bank of them."""
