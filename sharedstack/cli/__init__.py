"""The `sharedstack` command. `run` is on a fast path of its own; everything else is a typer application."""
