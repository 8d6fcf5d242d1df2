"""The use cases. The doors (command line, worker, library) call these and nothing else."""
