"""A vault that opens for the right key.

Your tasks stand in README.md beside this file.

    uvicorn exercise:app --reload --timeout-graceful-shutdown 1
"""

import os

from fastapi import FastAPI

TOKEN = os.environ.get("TOKEN", "secret")

app = FastAPI()

# TODO 1: WS /vault, for guests with the right key in the query.
# TODO 2: the same for guests who bring it in the header Authorization.
# TODO 3: WS /desk, which lets everybody in and tells them why they have to go.
