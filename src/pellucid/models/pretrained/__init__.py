"""One table of names per foreign family."""
