"""The entry point of this distribution. It has no hooks yet: the fabric is not there, and nothing is registered."""
