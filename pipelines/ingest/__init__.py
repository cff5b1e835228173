"""The live feed: protocol, socket, producer."""
