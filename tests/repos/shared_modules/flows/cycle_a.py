import cycle_b
