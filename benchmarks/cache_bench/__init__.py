"""What `encoder_cache.py` runs in processes of their own."""
