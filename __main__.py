"""``python -m cellwall``: the same as the ``cellwall`` command."""

from .runtime.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
