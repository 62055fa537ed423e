"""What a run leaves: records, and what is counted, measured and judged of them."""
