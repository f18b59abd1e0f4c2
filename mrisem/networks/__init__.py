"""Backbones: plain nn.Modules that know nothing of the prior."""
