"""Entry of `edgepack` and of `python -m edgepack`."""

from edgepack import interrupts

# First of all: everything else that is imported takes longer than a user needs to press Ctrl-C.
interrupts.exit_at_once()

from edgepack import import_path  # noqa: E402

# Before any import that the current folder could answer: `python -m edgepack`, or an empty entry in PYTHONPATH, puts it
# first. The imports above are part of this package or built into Python.
import_path.clean()


def main() -> None:
    """Run the command line and exit with the documented code."""
    from edgepack.cli import main as run_command_line

    run_command_line()


if __name__ == "__main__":
    main()
