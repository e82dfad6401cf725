"""The Python binding of Baton's wire contract (see proto/README.md).

It does no I/O and imports nothing else of this project, so a worker may vendor it or ignore it: the bytes are the
contract, and this package is one way to read and write them.
"""
