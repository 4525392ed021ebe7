"""The worklist page: rendered here, live without reload."""
