"""The `hilum` command."""
