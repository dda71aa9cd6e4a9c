"""The jobs: read, call, check, write."""
