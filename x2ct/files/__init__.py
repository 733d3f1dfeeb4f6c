"""Files that appear whole or not at all, and JSON and CSV files that may be wrong."""
