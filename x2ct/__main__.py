"""`python -m x2ct` is the `x2ct` command."""

from x2ct.cli import main

if __name__ == "__main__":
    main()
