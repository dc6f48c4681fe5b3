"""Volumes: folders of cellwall's own that outlive containers, and what a container has mounted of them."""
