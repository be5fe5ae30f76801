"""`python -m metalr` is the `metalr` command."""

import signal
import sys


def main() -> int:
    """Carry out the command, which a signal ends from its first moment on."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # as in `program.end_at_signals`
    from metalr import cli

    return cli.main()


if __name__ == "__main__":
    sys.exit(main())
