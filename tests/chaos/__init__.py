"""`make chaos`: real processes under a seeded storm of faults, and the proof that no answer lost a frame.

docs/chaos.md says what it proves and how to read it.
"""
