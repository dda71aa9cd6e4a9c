"""What is known of users and items at a moment, read from the feature tables into aligned arrays."""
