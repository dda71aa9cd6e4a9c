"""Pure DataFrame to DataFrame: what was known at as_of."""
