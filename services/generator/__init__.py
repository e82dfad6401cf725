"""Writes the answer."""
