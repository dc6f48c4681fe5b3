"""Locks: a notebook's metadata says which image each name in its cells stands for, and locked runs take exactly those."""
