"""Pages about replications, made from the committed results alone: an index, and one page each."""
