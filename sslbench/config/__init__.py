"""A benchmark as values: recipes, jobs and grids, and how they are written and resolved."""
