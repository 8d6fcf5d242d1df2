"""Reports and errors as JSON or text. Pure: prints nothing, shows no value."""

from flysync.render.as_json import (
    SCHEMA,
    check_json,
    envelope,
    error_json,
    history_json,
    init_json,
    next_json,
    notes_json,
    run_json,
    sandboxes_json,
    status_json,
    sync_json,
)
from flysync.render.as_text import (
    bug_text,
    check_text,
    error_text,
    failure_text,
    init_text,
    next_text,
    notes_text,
    sandboxes_text,
    sync_text,
)
from flysync.render.history_text import history_text, run_text
from flysync.render.status_text import status_text

__all__ = [
    "SCHEMA",
    "bug_text",
    "check_json",
    "check_text",
    "envelope",
    "error_json",
    "error_text",
    "failure_text",
    "history_json",
    "history_text",
    "init_json",
    "init_text",
    "next_json",
    "next_text",
    "notes_json",
    "notes_text",
    "run_json",
    "run_text",
    "sandboxes_json",
    "sandboxes_text",
    "status_json",
    "status_text",
    "sync_json",
    "sync_text",
]
