"""In-memory ports, shipped: for tests of code that uses flysync, held to the same contracts as the real ones."""
