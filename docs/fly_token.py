"""
Gives flysync the Fly token of a project: FLYSYNC_TOKEN_COMMAND="python fly_token.py".

They are in a table of yours, fly_tokens (project_id, token). Needs `psycopg`.
"""

import json
import os
import sys

import psycopg

project = json.load(sys.stdin)["project"]
with psycopg.connect(os.environ["DATABASE_URL"]) as database:
    row = database.execute("SELECT token FROM fly_tokens WHERE project_id = %s", [project]).fetchone()
json.dump({"token": row and row[0]}, sys.stdout)
