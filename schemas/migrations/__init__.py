"""The database's steps from one version to the next; `worker.record.database` runs them."""
