"""The worker: it takes jobs from the queue, and syncs credentials or removes their secrets."""
