"""Guesses of open calls, the shadows that try them, and the answers that are computed early."""
