"""Versions of functions and classes: digests of the code that decides what they return."""
