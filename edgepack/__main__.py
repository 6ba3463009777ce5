"""Entry of `edgepack` and of `python -m edgepack`."""

from edgepack import interrupts

# Before everything else is imported, which takes longer than a user needs to press Ctrl-C.
interrupts.exit_at_once()


def main() -> None:
    """Run the command line and exit with the documented code."""
    from edgepack.cli import main as run_command_line

    run_command_line()


if __name__ == "__main__":
    main()
