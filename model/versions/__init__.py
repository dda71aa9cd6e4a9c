"""Models that are stored: bundles on disk, versions in MLflow's registry, and which of them is in use when."""
