"""Feature-level modules that any method can carry."""
