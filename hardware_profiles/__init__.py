"""What a device costs: timing, runtimes, and the profiles that hold measured rows.

A block is known here only by an opaque key and the name of its precision, so this package imports no search space.
"""
