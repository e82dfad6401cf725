"""Finds passages for a question."""
