"""The only code that touches the outside world; the adapters do not know each other."""
