"""What all tests share: property tests that find the same on every machine, however slow it is."""

from hypothesis import settings

settings.register_profile("baton", derandomize=True, deadline=None, database=None)
settings.load_profile("baton")
