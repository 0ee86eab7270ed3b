"""Sources of rows made of other rows: joined, padded, repeated."""
