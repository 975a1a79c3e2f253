"""A server that drops texts for ships that do not read."""

from harbour import Harbour

app = Harbour().app
