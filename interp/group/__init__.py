"""Composition in finite groups: characters, representations, cosets."""
