"""Tables and the numbers under them: pure functions of the per-case records that finished runs left."""
