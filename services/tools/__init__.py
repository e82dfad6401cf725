"""Runs tool calls."""
