"""From the wire to features."""
