"""Data of the user's own: how they are laid out, what is defined of them, and the recipe planned for them."""
