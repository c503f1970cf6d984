"""`python -m s2kd`: the command line, also where its script is not on the path."""

from s2kd.cli import main

if __name__ == "__main__":
    main()
