"""The daemon `sharedstack-helper`: creates and lends the segments of a stack, and cleans up after the dead.

Everything it reads from a segment was written by others and is checked before use; it may be killed and started again at
any time (docs: design, section 8).
"""
