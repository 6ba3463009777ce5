"""Entry of `edgepack` and of `python -m edgepack`."""

from edgepack import import_path

# Before any other import: `python -m edgepack`, or an empty entry in PYTHONPATH, puts the current folder first.
import_path.clean()

from edgepack import interrupts  # noqa: E402

# Before everything else is imported, which takes longer than a user needs to press Ctrl-C.
interrupts.exit_at_once()


def main() -> None:
    """Run the command line and exit with the documented code."""
    from edgepack.cli import main as run_command_line

    run_command_line()


if __name__ == "__main__":
    main()
