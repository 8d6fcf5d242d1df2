"""Copy a project's credentials to its app, or remove them: one run, from the first look to the report."""
