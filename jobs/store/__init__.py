"""Tables and what is known of them: the one door to Delta, leases, runs on record, raw files and whether they may be written."""
