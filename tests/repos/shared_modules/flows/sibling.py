import cycle_a
