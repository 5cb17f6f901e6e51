"""What work costs: time, FLOPs and memory, of searches as a whole and of their parts."""
