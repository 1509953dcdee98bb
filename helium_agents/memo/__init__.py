"""What is remembered: the store port, LMDB and in-memory stores."""
