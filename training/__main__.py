"""`python -m training` is `hilum train` without the rest of hilum."""

from training.cli import app

app()
