"""The database: what was received, what was said of it, what must be told. Nothing leaves it half done."""
