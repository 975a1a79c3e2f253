"""`python -m exercises`: the command line of the exercises."""

import gc
import sys

from exercises.grader import forking

if __name__ == "__main__":
    gc.disable()  # Imports leave little to collect, and looking for it takes its time.
    if sys.argv[1:2] in (["check"], ["watch"]):
        # It imports what students' servers need while this process imports the rest.
        forking.server.begin()

    from exercises.grader.commands import main

    gc.enable()
    main()
