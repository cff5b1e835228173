"""Kinesis: batching, writing, offsets, reading, and the Spark data source."""
