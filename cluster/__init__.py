"""Where it runs and who starts whom."""
