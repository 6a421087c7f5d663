"""What keeps a run alive and honest: plugins called under limits, their faults attributed, signs of trouble looked out for."""
