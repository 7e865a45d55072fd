"""Anchor composition: how a model passes a key through two anchors."""
