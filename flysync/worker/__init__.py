"""The worker: it takes jobs from the queue and syncs their credentials."""
