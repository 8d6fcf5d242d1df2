"""
Stand-ins for the outside world, on loopback: Daytona's API, Fly.io's API, flyctl's installer and a Postgres.

They are shipped for `flysync demo` and the tests. Each rule says where it comes from: measured, read or assumed.
"""
