"""Arithmetic mod p: waves, circuits and progress measures."""
