"""Compression of an encoder: a light student that imitates it, or a part of its channels."""
