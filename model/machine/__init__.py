"""The machine that computes: devices, processes, threads and memory. Knows nothing of users and items."""
