"""`python -m modelnative`, the same as the command `modelnative`."""

from modelnative.cli import main

if __name__ == "__main__":
    main()
