"""`python -m training` is `hilum train` without the rest of hilum."""

import typer

from training.cli import train

typer.run(train)
