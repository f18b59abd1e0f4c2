"""Generative route: a diffusion model of images, or a projection onto what it can draw, guides."""
