"""A hotel whose paths lead to the right desk.

Your tasks stand in README.md beside this file.

    uvicorn exercise:app --reload --timeout-graceful-shutdown 1
"""

from fastapi import FastAPI

app = FastAPI()

# TODO 1: WS /desk/{name}, where the path names a person.
# TODO 2: WS /floor/{number}/bell, where the number is an integer.
# TODO 3: WS /desk/emergency, and a router for everything below /cellar.
