"""One file per task family. A family imports what tasks are made of, and nothing else of the house."""
