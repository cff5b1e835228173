"""The Delta tables: schemas, idempotent commits, queries."""
