"""`python -m tamis` is the `tamis` command."""

from tamis.cli import main

if __name__ == "__main__":
    main()
