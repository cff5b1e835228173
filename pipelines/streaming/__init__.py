"""The streaming queries on Spark."""
