"""The ground that every other package stands on; it imports none of them."""
