"""The worker: from C-STORE to the flag on the worklist."""

__version__ = "0.1.0"
