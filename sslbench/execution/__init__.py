"""Running jobs: run directories, worker processes, the launcher that keeps them busy."""
