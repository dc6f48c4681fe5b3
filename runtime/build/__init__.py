"""Dockerfiles: read, planned, and built. The reading half:

``dockerfile.parse`` gives plain values; ``scope`` fills in variables while a build walks through a stage; ``stages`` says what a
target needs. Nothing here runs a command or touches a file.

Implements: the Dockerfile reference (syntax 1), as far as the stable frontend has it; moby's pattern matching.
"""

from __future__ import annotations
