"""The command line: a command parses its arguments, calls one handler, renders the report and gives the exit code."""
