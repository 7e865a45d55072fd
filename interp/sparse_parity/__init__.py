"""Sparse parity: which bits a network reads, and when."""
