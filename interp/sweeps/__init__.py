"""What is asked of many runs: phase diagrams, small multiples, foresight, contrasts."""
