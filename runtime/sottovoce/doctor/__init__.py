"""What this machine can run: which parts work, how fast its cores and memory are, and whether a bundle fits."""
