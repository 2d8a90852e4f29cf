"""Placeholder."""

import click


@click.group()
def backup() -> None:
    """Back up."""
