"""Look at everything that a sync needs."""
