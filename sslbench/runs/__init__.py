"""Run directories and their records: what a job left on disk, where it stands, and who is working on it."""
