"""flysync brings credentials from Postgres to Fly.io apps as secrets."""
