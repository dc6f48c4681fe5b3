"""Dockerfiles, read: instructions and their places, variable substitution, the graph of stages, ``.dockerignore``.

``dockerfile.parse`` gives plain values; ``scope`` fills in variables while a build walks through a stage; ``stages`` says what a
target needs. Nothing here runs a command or touches a file.

Implements: the Dockerfile reference (syntax 1), as far as the stable frontend has it; moby's pattern matching.
"""

from __future__ import annotations
