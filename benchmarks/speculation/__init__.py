"""Speculation in virtual time: programs whose answers can be guessed as often as one wants."""
