"""Backbones: plain nn.Modules, independent of the semantic prior."""
