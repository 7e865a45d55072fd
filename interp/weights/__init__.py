"""What is asked of any network's weights: condensation, rank, collapse, dynamics, laziness."""
