"""A worker that takes jobs off the queue and gives them to the handlers."""
