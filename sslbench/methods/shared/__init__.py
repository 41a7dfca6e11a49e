"""Steps that two or more methods take."""
