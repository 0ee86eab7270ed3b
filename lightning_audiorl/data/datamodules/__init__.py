"""Data modules: which rows make which batch, and the loaders that read them."""
