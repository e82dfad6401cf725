"""Makes the golden vectors in proto/vectors: the bytes are the contract, and these are its examples.

A case that has been released is never changed or taken away; new ones are added beside it.
"""
