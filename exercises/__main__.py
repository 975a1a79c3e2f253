"""`python -m exercises`: the command line of the exercises."""

from exercises.grader.commands import main

if __name__ == "__main__":
    main()
