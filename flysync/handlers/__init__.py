"""The use cases. The entrances (command line, worker, library) call these and nothing else."""
