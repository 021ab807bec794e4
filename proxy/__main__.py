"""`python -m proxy`: the command line without its console script."""

from proxy.cli import main

if __name__ == "__main__":
    main()
