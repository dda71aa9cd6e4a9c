"""Lists against what users then did, beside baselines and rivals."""
