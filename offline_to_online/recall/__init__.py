"""Users to the user store, items to the item index."""
