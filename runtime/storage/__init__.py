"""Layers on disk and the mounts made of them: one protocol (driver.py) with the drivers behind it.

Layer archives are unpacked, merged and removed by a confined worker process (runtime/worker.py), never in the caller's.
"""
